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
// Dispatch: a workgroup of 64 a target of the chunk that begins at target `start`. Rows past the
// live targets are not touched; the columns that fill a row up to a multiple of four hold anything.
@compute @workgroup_size(WG_SIZE)
fn token_logprob_forward(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = linear_workgroup(group, groups);
    if (index >= live_from(params.rows, params.targets_count, params.start)) {
        return;
    }
    let n = params.start + index;
    let row = read_row(index, targets[n].token, local);
    if (local == 0u) {
        logprobs[n] = row_figures(row);
    }
}

@compute @workgroup_size(WG_SIZE)
fn token_logprob_backward(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = linear_workgroup(group, groups);
    if (index >= live_from(params.rows, params.targets_count, params.start)) {
        return;
    }
    let n = params.start + index;
    let token = targets[n].token;
    let incoming = gradients[n];
    let row = read_row(index, token, local);
    let first = index * params.stride / 4u;
    let fours = (params.vocab + 3u) / 4u;
    for (var i = local; i < fours; i += WG_SIZE) {
        let z = load_logits(first + i);
        logits[first + i] = row_gradient(row, z, 4u * i, token, incoming);
    }
}
