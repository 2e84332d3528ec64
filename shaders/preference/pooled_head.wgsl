// The scalar reward head on each answer's pooled row, and its gradients.
//
//   pooled_head_forward   reward[a] = sum_c hidden[answer[a].pooled_row, c] w[c]
//   pooled_head_dhidden   dhidden[row, c] = (sum of dreward[a] over the row's answers) w[c],
//                         for the rows of the pooled lists only: the others are cleared before
//   pooled_head_dw        dw[c] += sum_a dreward[a] hidden[answer[a].pooled_row, c]
//
// Bindings: 0 params, 1 counts (where live), 2 answers (A, read), 3 hidden (T, C; read), 4 w (C,
// read), 5 rewards (A, written), 6 drewards (A, read), 7 lists (pooled lists, read), 8 rows (answers
// of the lists, read), 9 dhidden (T, C; written), 10 dw (C, added to).
//
// Dispatch: forward a workgroup of 64 an answer; dhidden a workgroup of 64 a list; dw a workgroup of
// 16 x 16 for 16 columns, whose rows of threads take every 16th answer and end in a tree. The order
// of all sums is fixed. Nothing is written past the live sizes.
//
// Source: Ouyang et al. 2022 (arXiv 2203.02155, section 3.5).
const WG_SIZE: u32 = 64u;
const DW_COLUMNS: u32 = 16u;
const DW_LANES: u32 = 16u;

struct Params {
    answers: u32,
    answers_count: u32,
    lists: u32,
    lists_count: u32,
    width: u32,
}

struct Answer {
    pooled_row: u32,
    segment: u32,
    record: u32,
    index: u32,
}

struct RowList {
    id: u32,
    start: u32,
    end: u32,
    pad: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> answers: array<Answer>;
@group(0) @binding(3) var<storage, read> hidden: array<f32>;
@group(0) @binding(4) var<storage, read> w: array<f32>;
@group(0) @binding(5) var<storage, read_write> rewards: array<f32>;
@group(0) @binding(6) var<storage, read> drewards: array<f32>;
@group(0) @binding(7) var<storage, read> lists: array<RowList>;
@group(0) @binding(8) var<storage, read> rows: array<u32>;
@group(0) @binding(9) var<storage, read_write> dhidden: array<f32>;
@group(0) @binding(10) var<storage, read_write> dw: array<f32>;

var<workgroup> sh_sum: array<f32, WG_SIZE>;
var<workgroup> sh_dw: array<array<f32, DW_COLUMNS>, DW_LANES>;

@compute @workgroup_size(WG_SIZE)
fn pooled_head_forward(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let a = linear_workgroup(group, groups);
    if (a >= live(params.answers, params.answers_count)) {
        return;
    }
    let first = answers[a].pooled_row * params.width;
    var sum = 0.0;
    for (var c = local; c < params.width; c += WG_SIZE) {
        sum += hidden[first + c] * w[c];
    }
    sh_sum[local] = sum;
    for (var half = WG_SIZE / 2u; half > 0u; half /= 2u) {
        // Makes the sums of the previous round visible.
        workgroupBarrier();
        if (local < half) {
            sh_sum[local] += sh_sum[local + half];
        }
    }
    if (local == 0u) {
        rewards[a] = sh_sum[0];
    }
}

@compute @workgroup_size(WG_SIZE)
fn pooled_head_dhidden(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = linear_workgroup(group, groups);
    if (index >= live(params.lists, params.lists_count)) {
        return;
    }
    let list = lists[index];
    var dreward = 0.0;
    for (var i = list.start; i < list.end; i++) {
        dreward += drewards[rows[i]];
    }
    for (var c = local; c < params.width; c += WG_SIZE) {
        dhidden[list.id * params.width + c] = dreward * w[c];
    }
}

@compute @workgroup_size(DW_COLUMNS, DW_LANES)
fn pooled_head_dw(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
) {
    let first = linear_workgroup(group, groups) * DW_COLUMNS;
    if (first >= params.width) {
        return;
    }
    let count = live(params.answers, params.answers_count);
    let c = min(first + local.x, params.width - 1u);
    var sum = 0.0;
    for (var a = local.y; a < count; a += DW_LANES) {
        sum += drewards[a] * hidden[answers[a].pooled_row * params.width + c];
    }
    sh_dw[local.y][local.x] = sum;
    for (var half = DW_LANES / 2u; half > 0u; half /= 2u) {
        // Makes the sums of the previous round visible.
        workgroupBarrier();
        if (local.y < half) {
            sh_dw[local.y][local.x] += sh_dw[local.y + half][local.x];
        }
    }
    if (local.y == 0u && first + local.x < params.width) {
        dw[c] += sh_dw[0][local.x];
    }
}
