// Log-probability of each target's token from a row of logits, and, where BACKWARD, the gradient of
// the loss in the logits' place. The formulas are beside the shared part, in lib/cross_entropy.
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
//
// Source: online sums Milakov & Gimelshein 2018 (arXiv 1805.02867, algorithm 3).
const ROWS: u32 = 4u;

@compute @workgroup_size(128)
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
    let fours = (params.vocab + 3u) / 4u;
    // The number of turns does not depend on the subgroup, so that all of them meet at the
    // subgroup operations: those without a row add up nothing.
    for (var turn = 0u; turn < ROWS; turn++) {
        let in_group = turn * (128u / size) + local / size;
        let row = first_row + in_group;
        let mine = in_group < ROWS && row < rows;
        let first = row * params.stride / 4u;
        let end = select(0u, fours, mine);
        var aim = Target();
        if (mine) {
            aim = targets[params.start + row];
        }
        // The target's own logit is read by the lane that will overwrite it.
        var own = LOWEST;
        if (mine && lane == (aim.token / 4u) % size) {
            own = logit(row, aim.token);
        }
        own = subgroupMax(own);
        var sum = Sum(LOWEST, 0.0);
        for (var i = lane; i < end; i += size) {
            sum = add_fours(sum, logits[first + i], 4u * i, aim.token);
        }
        let highest = subgroupMax(sum.max);
        let others = Sum(highest, subgroupAdd(sum.rest * exp(sum.max - highest)));
        if (mine && lane == 0u) {
            logprobs[params.start + row] = logprob(others, own);
        }
        if (BACKWARD) {
            let factor = target_scale(params.target_scale) * aim.weight;
            for (var i = lane; i < end; i += size) {
                let z = logits[first + i];
                logits[first + i] = gradient(z, 4u * i, aim.token, others, own, factor);
            }
        }
    }
}
