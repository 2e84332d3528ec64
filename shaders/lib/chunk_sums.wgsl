// Sums over many rows in two passes of fixed order: first chunks of CHUNK_ROWS rows, each into a
// row of `partials`, then, here, these. Sums of sums of at most 64 values keep the rounding error
// of a million rows near that of a few hundred. The kernel declares `partials: array<Columns>`, and
// its second pass has workgroups of 64: SUM_LANES threads a column, which share its chunks.
const CHUNK_ROWS: u32 = 32u;
const CHUNKS_A_BLOCK: u32 = 64u;
const SUM_COLUMNS: u32 = 64u / SUM_LANES;

var<workgroup> lane_sums: array<Columns, 64>;

// The sum of partials[column + i * stride] over first <= i < last.
fn sum_range(column: u32, stride: u32, first: u32, last: u32) -> Columns {
    var sum = Columns();
    for (var start = first; start < last; start += CHUNKS_A_BLOCK) {
        let end = min(start + CHUNKS_A_BLOCK, last);
        let whole = end - (end - start) % 4u;
        var block = Columns();
        // Four loads at a time: they wait for each other otherwise.
        for (var i = start; i < whole; i += 4u) {
            let at = column + i * stride;
            block += (partials[at] + partials[at + stride])
                + (partials[at + 2u * stride] + partials[at + 3u * stride]);
        }
        for (var i = whole; i < end; i++) {
            block += partials[column + i * stride];
        }
        sum += block;
    }
    return sum;
}

// The sum over all chunks, by every thread of the workgroup: those of one column get the same.
fn sum_chunks(column: u32, stride: u32, chunks: u32, thread: u32) -> Columns {
    if (SUM_LANES == 1u) {
        return sum_range(column, stride, 0u, chunks);
    }
    let share = (chunks + SUM_LANES - 1u) / SUM_LANES;
    let first = min(thread / SUM_COLUMNS * share, chunks);
    lane_sums[thread] = sum_range(column, stride, first, min(first + share, chunks));
    // The lanes' sums are there.
    workgroupBarrier();
    var sum = lane_sums[thread % SUM_COLUMNS];
    for (var lane = 1u; lane < SUM_LANES; lane++) {
        sum += lane_sums[thread % SUM_COLUMNS + lane * SUM_COLUMNS];
    }
    // They have been read.
    workgroupBarrier();
    return sum;
}
