// Reads a row of logits with a workgroup of 64: one pass, then a tree.
const WG_SIZE: u32 = 64u;

var<workgroup> sh_sums: array<Sums, WG_SIZE>;
var<workgroup> sh_own: f32;

fn read_row(row: u32, token: u32, local: u32) -> Row {
    let first = row * params.stride / 4u;
    let fours = (params.vocab + 3u) / 4u;
    // Read by the thread that may overwrite it afterwards.
    if (local == (token / 4u) % WG_SIZE) {
        sh_own = logit(row, token);
    }
    var sums = no_sums();
    for (var i = local; i < fours; i += WG_SIZE) {
        sums = add_fours(sums, load_logits(first + i), 4u * i);
    }
    sh_sums[local] = sums;
    for (var half = WG_SIZE / 2u; half > 0u; half /= 2u) {
        // Makes the sums of the previous round visible.
        workgroupBarrier();
        if (local < half) {
            sh_sums[local] = merge(sh_sums[local], sh_sums[local + half]);
        }
    }
    // Makes the last sums, and the target's own logit, visible to all.
    workgroupBarrier();
    return Row(sh_sums[0], sh_own);
}
