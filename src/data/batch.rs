//! The structs of a packed batch, as they lie on the device.

use crate::gpu::device_struct;

/// Marks an index that points nowhere.
pub const NONE: u32 = u32::MAX;
/// Rows of one attention work item, at most.
pub const TILE_ROWS: u32 = 32;

device_struct! {
    /// A run of tokens that attends to its prefix and to itself.
    pub struct Segment {
        /// First packed row.
        pub start: u32,
        /// Tokens.
        pub len: u32,
        /// First packed row of the prefix.
        pub prefix_start: u32,
        /// Tokens of the prefix; 0 for a prompt.
        pub prefix_len: u32,
        /// Position of the first token.
        pub position: u32,
        /// One past the last row that may attend to this segment's tokens: key j is attended to
        /// by exactly the rows [j, query_end).
        pub query_end: u32,
        /// Zero.
        pub pad: [u32; 2],
    }
}

device_struct! {
    /// At most [`TILE_ROWS`] consecutive rows of one segment: a work item of attention.
    pub struct Tile {
        /// Index of the segment.
        pub segment: u32,
        /// First packed row.
        pub row: u32,
    }
}

device_struct! {
    /// An answer whose reward is wanted.
    pub struct Answer {
        /// The packed row whose hidden state the head reads.
        pub pooled_row: u32,
        /// The answer's segment.
        pub segment: u32,
        /// The record, by its index in the batch.
        pub record: u32,
        /// Which response of the record.
        pub index: u32,
    }
}

device_struct! {
    /// A preference of answer 2p over answer 2p+1.
    pub struct Pair {
        /// Factor of the pair's loss.
        pub weight: f32,
        /// By how much the chosen reward should exceed the rejected one.
        pub margin: f32,
    }
}

device_struct! {
    /// A row that predicts a token.
    pub struct Target {
        /// The packed row whose hidden state predicts.
        pub row: u32,
        /// The token to predict.
        pub token: u32,
        /// The answer the token belongs to, or [`NONE`] within a prompt.
        pub answer: u32,
        /// Factor of the target's loss.
        pub weight: f32,
    }
}

device_struct! {
    /// A list `rows[start..end]` that belongs to `id`: a sum in fixed order.
    pub struct RowList {
        /// A token, position or row.
        pub id: u32,
        /// First index into the list of rows.
        pub start: u32,
        /// One past the last.
        pub end: u32,
        /// Zero.
        pub pad: u32,
    }
}

device_struct! {
    /// The live sizes of a batch, 64 bytes.
    pub struct Counts {
        /// Packed tokens.
        pub tokens: u32,
        /// Segments.
        pub segments: u32,
        /// Attention tiles.
        pub tiles: u32,
        /// Answers.
        pub answers: u32,
        /// Pairs.
        pub pairs: u32,
        /// Targets.
        pub targets: u32,
        /// Distinct tokens.
        pub token_lists: u32,
        /// Distinct positions.
        pub position_lists: u32,
        /// Distinct pooled rows.
        pub pooled_lists: u32,
        /// Distinct rows with targets.
        pub target_lists: u32,
        /// The row of the metrics ring this batch writes.
        pub slot: u32,
        /// Factor of every pair's loss and gradient.
        pub pair_scale: f32,
        /// Factor of every target's loss and gradient.
        pub target_scale: f32,
        /// Zero.
        pub pad: [u32; 3],
    }
}
