// Reads a row of logits with a subgroup. A workgroup of 128 takes ROWS rows in turns whose number
// does not depend on the subgroups' size, so that all of them meet at the subgroup operations;
// those without a row add up nothing.
const ROWS: u32 = 4u;
const WG_SIZE: u32 = 128u;

// The row of the workgroup that this lane's subgroup takes in a turn; ROWS or more: none.
fn row_of_turn(turn: u32, local: u32, size: u32) -> u32 {
    return turn * (WG_SIZE / size) + local / size;
}

fn read_row(row: u32, token: u32, mine: bool, lane: u32, size: u32) -> Row {
    let first = row * params.stride / 4u;
    let end = select(0u, (params.vocab + 3u) / 4u, mine);
    // Read by the lane that may overwrite it afterwards.
    var own = LOWEST;
    if (mine && lane == (token / 4u) % size) {
        own = logit(row, token);
    }
    own = subgroupMax(own);
    var sums = no_sums();
    for (var i = lane; i < end; i += size) {
        sums = add_fours(sums, load_logits(first + i), 4u * i);
    }
    let highest = subgroupMax(sums.max);
    let d = (sums.max - highest) * inverse_temperature();
    let e = exp(d);
    // One lane's maximum is the row's; the others' count among the rest.
    let keeper = subgroupMin(select(size, lane, sums.max == highest));
    let low = sums.rest + select(1.0, 0.0, lane == keeper);
    let rest = subgroupAdd(e * low);
    let weighted = subgroupAdd(e * (sums.weighted + d * low));
    return Row(Sums(highest, rest, weighted), own);
}
