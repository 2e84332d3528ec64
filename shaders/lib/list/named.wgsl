// Lists that say by number which entries are theirs.
@group(0) @binding(8) var<storage, read> rows: array<u32>;

fn listed(i: u32) -> u32 {
    return rows[i];
}
