//! The structs of a packed batch, as they lie on the device.

use crate::gpu::Element;

/// Marks an index that points nowhere.
pub const NONE: u32 = u32::MAX;
/// Rows of one attention work item, at most.
pub const TILE_ROWS: u32 = 32;

macro_rules! device_struct {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[repr(C)]
        #[derive(Debug, Clone, Copy, PartialEq, Default, bytemuck::Pod, bytemuck::Zeroable)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
        }

        impl Element for $name {
            const NAME: &'static str = stringify!($name);
        }
    };
}

device_struct! {
    /// A run of tokens that attends to its prefix and to itself.
    Segment {
        /// First packed row.
        start: u32,
        /// Tokens.
        len: u32,
        /// First packed row of the prefix.
        prefix_start: u32,
        /// Tokens of the prefix; 0 for a prompt.
        prefix_len: u32,
        /// Position of the first token.
        position: u32,
        /// One past the last row that may attend to this segment's tokens: key j is attended to
        /// by exactly the rows [j, query_end).
        query_end: u32,
        /// Zero.
        pad: [u32; 2],
    }
}

device_struct! {
    /// At most [`TILE_ROWS`] consecutive rows of one segment: a work item of attention.
    Tile {
        /// Index of the segment.
        segment: u32,
        /// First packed row.
        row: u32,
    }
}

device_struct! {
    /// An answer whose reward is wanted.
    Answer {
        /// The packed row whose hidden state the head reads.
        pooled_row: u32,
        /// The answer's segment.
        segment: u32,
        /// The record, by its index in the batch.
        record: u32,
        /// Which response of the record.
        index: u32,
    }
}

device_struct! {
    /// A preference of answer 2p over answer 2p+1.
    Pair {
        /// Factor of the pair's loss.
        weight: f32,
        /// By how much the chosen reward should exceed the rejected one.
        margin: f32,
    }
}

device_struct! {
    /// A row that predicts a token.
    Target {
        /// The packed row whose hidden state predicts.
        row: u32,
        /// The token to predict.
        token: u32,
        /// The answer the token belongs to, or [`NONE`] within a prompt.
        answer: u32,
        /// Factor of the target's loss.
        weight: f32,
    }
}

device_struct! {
    /// A list `rows[start..end]` that belongs to `id`: a sum in fixed order.
    RowList {
        /// A token, position or row.
        id: u32,
        /// First index into the list of rows.
        start: u32,
        /// One past the last.
        end: u32,
        /// Zero.
        pad: u32,
    }
}

device_struct! {
    /// The live sizes of a batch, 64 bytes.
    Counts {
        /// Packed tokens.
        tokens: u32,
        /// Segments.
        segments: u32,
        /// Attention tiles.
        tiles: u32,
        /// Answers.
        answers: u32,
        /// Pairs.
        pairs: u32,
        /// Targets.
        targets: u32,
        /// Distinct tokens.
        token_lists: u32,
        /// Distinct positions.
        position_lists: u32,
        /// Distinct pooled rows.
        pooled_lists: u32,
        /// Distinct rows with targets.
        target_lists: u32,
        /// The row of the metrics ring this batch writes.
        slot: u32,
        /// Factor of every pair's loss and gradient.
        pair_scale: f32,
        /// Factor of every target's loss and gradient.
        target_scale: f32,
        /// Zero.
        pad: [u32; 3],
    }
}
