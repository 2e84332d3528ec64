// The second pass of chunk_sums by workgroups of 64: SUM_LANES threads a column, which share its
// chunks.
const SUM_COLUMNS: u32 = 64u / SUM_LANES;

var<workgroup> shares: array<Columns, 64>;

// The sum over all chunks, by every thread of the workgroup: those of one column get the same.
fn sum_chunks(column: u32, stride: u32, chunks: u32, thread: u32) -> Columns {
    if (SUM_LANES == 1u) {
        return sum_range(column, stride, 0u, chunks);
    }
    let share = (chunks + SUM_LANES - 1u) / SUM_LANES;
    let first = min(thread / SUM_COLUMNS * share, chunks);
    shares[thread] = sum_range(column, stride, first, min(first + share, chunks));
    // The lanes' sums are there.
    workgroupBarrier();
    var sum = shares[thread % SUM_COLUMNS];
    for (var lane = 1u; lane < SUM_LANES; lane++) {
        sum += shares[thread % SUM_COLUMNS + lane * SUM_COLUMNS];
    }
    // They have been read.
    workgroupBarrier();
    return sum;
}
