// Log-probability of each target's token from a row of logits, and, where BACKWARD, the gradient of
// the loss in the logits' place. The formulas are in lib/logprob/row.wgsl, at temperature 1.
//
//   loss = target_scale sum(-weight logprob);  dlogits = target_scale weight (softmax - onehot)
//
// Bindings: 0 params, 1 counts (where live), 2 targets (N, read), 3 logits (chunk, stride; read and,
// where BACKWARD, overwritten in the first vocab columns), 4 logprobs (N, written).
//
// Dispatch: a workgroup of 64 a target of the chunk that begins at target `start`. Rows past the
// live targets are not touched; the columns that fill a row up to a multiple of four hold anything.
@compute @workgroup_size(WG_SIZE)
fn cross_entropy(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = linear_workgroup(group, groups);
    if (index >= live_from(params.rows, params.targets_count, params.start)) {
        return;
    }
    let aim = targets[params.start + index];
    let row = read_row(index, aim.token, local);
    if (local == 0u) {
        logprobs[params.start + index] = row_logprob(row);
    }
    if (BACKWARD) {
        let first = index * params.stride / 4u;
        let fours = (params.vocab + 3u) / 4u;
        for (var i = local; i < fours; i += WG_SIZE) {
            let z = load_logits(first + i);
            logits[first + i] = row_gradient(row, z, 4u * i, aim.token, incoming(aim.weight));
        }
    }
}
