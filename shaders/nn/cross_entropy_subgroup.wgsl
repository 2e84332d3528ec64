// Log-probability of each target's token from a row of logits, and, where BACKWARD, the gradient of
// the loss in the logits' place. The formulas are in lib/logprob/row.wgsl, at temperature 1.
//
//   loss = target_scale sum(-weight logprob);  dlogits = target_scale weight (softmax - onehot)
//
// Bindings: 0 params, 1 counts (where live), 2 targets (N, read), 3 logits (chunk, stride; read and,
// where BACKWARD, overwritten in the first vocab columns), 4 logprobs (N, written).
//
// Dispatch: a workgroup of 128 for four targets of the chunk that begins at target `start`, each
// target by one subgroup, without barriers; with subgroups of more than 32 in several turns. Rows
// past the live targets are not touched; the columns that fill a row up to a multiple of four hold
// anything.
@compute @workgroup_size(WG_SIZE)
fn cross_entropy(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_size) size: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let rows = live_from(params.rows, params.targets_count, params.start);
    let first_row = linear_workgroup(group, groups) * ROWS;
    if (first_row >= rows) {
        return;
    }
    for (var turn = 0u; turn < ROWS; turn++) {
        let in_group = row_of_turn(turn, local, size);
        let index = first_row + in_group;
        let mine = in_group < ROWS && index < rows;
        var aim = Target();
        if (mine) {
            aim = targets[params.start + index];
        }
        let row = read_row(index, aim.token, mine, lane, size);
        if (mine && lane == 0u) {
            logprobs[params.start + index] = row_logprob(row);
        }
        if (BACKWARD) {
            let first = index * params.stride / 4u;
            let end = select(0u, (params.vocab + 3u) / 4u, mine);
            for (var i = lane; i < end; i += size) {
                let z = load_logits(first + i);
                logits[first + i] = row_gradient(row, z, 4u * i, aim.token, incoming(aim.weight));
            }
        }
    }
}
