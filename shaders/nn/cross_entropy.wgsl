// Log-probability of each target's token from a row of logits, and, where BACKWARD, the gradient of
// the loss in the logits' place. The formulas are beside the shared part, in lib/cross_entropy.
//
//   loss = target_scale sum(-weight logprob);  dlogits = target_scale weight (softmax - onehot)
//
// Bindings: 0 params, 1 counts (where live), 2 targets (N, read), 3 logits (chunk, stride; read and,
// where BACKWARD, overwritten in the first vocab columns), 4 logprobs (N, written).
//
// Dispatch: a workgroup of 64 a target of the chunk that begins at target `start`; one pass over
// its row, a tree, and the pass that writes. Rows past the live targets are not touched; the
// columns that fill a row up to a multiple of four hold anything.
//
// Source: online sums Milakov & Gimelshein 2018 (arXiv 1805.02867, algorithm 3).
const WG_SIZE: u32 = 64u;

var<workgroup> sh_sum: array<Sum, WG_SIZE>;
var<workgroup> sh_own: f32;

@compute @workgroup_size(WG_SIZE)
fn cross_entropy(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = linear_workgroup(group, groups);
    if (row >= live_from(params.rows, params.targets_count, params.start)) {
        return;
    }
    let aim = targets[params.start + row];
    let first = row * params.stride / 4u;
    let fours = (params.vocab + 3u) / 4u;
    // Read by the thread that will overwrite it.
    if (local == (aim.token / 4u) % WG_SIZE) {
        sh_own = logit(row, aim.token);
    }
    var sum = Sum(LOWEST, 0.0);
    for (var i = local; i < fours; i += WG_SIZE) {
        sum = add_fours(sum, logits[first + i], 4u * i, aim.token);
    }
    sh_sum[local] = sum;
    for (var half = WG_SIZE / 2u; half > 0u; half /= 2u) {
        // Makes the sums of the previous round visible.
        workgroupBarrier();
        if (local < half) {
            sh_sum[local] = merge(sh_sum[local], sh_sum[local + half]);
        }
    }
    // Makes the last sum, and the target's own logit, visible to all.
    workgroupBarrier();
    let others = sh_sum[0];
    let own = sh_own;
    if (local == 0u) {
        logprobs[params.start + row] = logprob(others, own);
    }
    if (BACKWARD) {
        let factor = target_scale(params.target_scale) * aim.weight;
        for (var i = local; i < fours; i += WG_SIZE) {
            let z = logits[first + i];
            logits[first + i] = gradient(z, 4u * i, aim.token, others, own, factor);
        }
    }
}
