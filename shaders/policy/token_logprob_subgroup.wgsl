// What a language model says of each target's token, from a row of logits at a temperature, and the
// way back. The formulas are in lib/logprob/row.wgsl.
//
//   token_logprob_forward    logprobs[n] = { ln p_token, entropy of p, ln sum exp(z / T), 0 }
//   token_logprob_backward   logits = the gradient of the logits, from that of the first two
//
// Bindings: 0 params, 1 counts (where live), 2 targets (N, read), 3 logits (chunk, stride; read, in
// the backward pass overwritten in the first vocab columns), 4 logprobs (N, written), 5 gradients
// (N, read).
//
// Dispatch: a workgroup of 128 for four targets of the chunk that begins at target `start`, each
// target by one subgroup, without barriers; with subgroups of more than 32 in several turns. Rows
// past the live targets are not touched; the columns that fill a row up to a multiple of four hold
// anything.
@compute @workgroup_size(WG_SIZE)
fn token_logprob_forward(
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
        let n = params.start + index;
        var token = 0u;
        if (mine) {
            token = targets[n].token;
        }
        let row = read_row(index, token, mine, lane, size);
        if (mine && lane == 0u) {
            logprobs[n] = row_figures(row);
        }
    }
}

@compute @workgroup_size(WG_SIZE)
fn token_logprob_backward(
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
        var token = 0u;
        var incoming = TokenGradient();
        if (mine) {
            token = targets[params.start + index].token;
            incoming = gradients[params.start + index];
        }
        let row = read_row(index, token, mine, lane, size);
        let first = index * params.stride / 4u;
        let end = select(0u, (params.vocab + 3u) / 4u, mine);
        for (var i = lane; i < end; i += size) {
            let z = load_logits(first + i);
            logits[first + i] = row_gradient(row, z, 4u * i, token, incoming);
        }
    }
}
