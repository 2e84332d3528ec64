// Entries are targets, at the rows that predict them; those of a list are consecutive.
struct Target {
    row: u32,
    token: u32,
    answer: u32,
    weight: f32,
}

@group(0) @binding(2) var<storage, read> entries: array<Target>;

fn row_of(n: u32) -> u32 {
    return entries[n].row;
}

fn listed(i: u32) -> u32 {
    return i;
}
