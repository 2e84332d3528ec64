// Sums over many rows in two passes of fixed order: first chunks of CHUNK_ROWS rows, each into a
// row of `partials`, then, here, these. Sums of sums of at most 64 values keep the rounding error
// of a million rows near that of a few hundred. The kernel declares `partials: array<Columns>`.
const CHUNK_ROWS: u32 = 32u;
const CHUNKS_A_BLOCK: u32 = 64u;

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
