// Entries are answers, at the rows where they pool; the lists say by number which are theirs.
struct Answer {
    pooled_row: u32,
    segment: u32,
    record: u32,
    index: u32,
}

@group(0) @binding(2) var<storage, read> entries: array<Answer>;
@group(0) @binding(8) var<storage, read> rows: array<u32>;

fn row_of(n: u32) -> u32 {
    return entries[n].pooled_row;
}

fn listed(i: u32) -> u32 {
    return rows[i];
}
