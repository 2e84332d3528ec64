// A head of one output, without bias, on the rows that entries name, and its gradients.
//
//   scalar_head_forward   out[n] = sum_c hidden[row of n, c] w[c]
//   scalar_head_dhidden   dhidden[row, c] = (sum of douts[n] over the row's entries n) w[c], where
//                         ADD added to what is there; only for the rows that have a list
//   scalar_head_dw        dw[c] += sum_n douts[n] hidden[row of n, c]
//
// Bindings: 0 params, 1 counts (where live), 2 entries (N, read), 3 hidden (T, C; read), 4 w (C,
// read), 5 out (N, written), 6 douts (N, read), 7 lists (one a row, read), 8 which entries the lists
// name (read, where they do), 9 dhidden (T, C; written or added to), 10 dw (C, added to). What the
// entries are is in lib/scalar_head: `row_of` gives an entry's row, `listed` a list's entries.
//
// Dispatch: forward a workgroup of 64 an entry; dhidden a workgroup of 64 a list; dw a workgroup of
// 16 x 16 for 16 columns, whose rows of threads take every 16th entry and end in a tree. The order
// of all sums is fixed. Nothing is written past the live sizes.
//
// Source: Ouyang et al. 2022 (arXiv 2203.02155, section 3.5).
const WG_SIZE: u32 = 64u;
const DW_COLUMNS: u32 = 16u;
const DW_LANES: u32 = 16u;

struct Params {
    entries: u32,
    entries_count: u32,
    lists: u32,
    lists_count: u32,
    width: u32,
}

struct RowList {
    id: u32,
    start: u32,
    end: u32,
    pad: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(3) var<storage, read> hidden: array<f32>;
@group(0) @binding(4) var<storage, read> w: array<f32>;
@group(0) @binding(5) var<storage, read_write> out: array<f32>;
@group(0) @binding(6) var<storage, read> douts: array<f32>;
@group(0) @binding(7) var<storage, read> lists: array<RowList>;
@group(0) @binding(9) var<storage, read_write> dhidden: array<f32>;
@group(0) @binding(10) var<storage, read_write> dw: array<f32>;

var<workgroup> sh_sum: array<f32, WG_SIZE>;
var<workgroup> sh_dw: array<array<f32, DW_COLUMNS>, DW_LANES>;

@compute @workgroup_size(WG_SIZE)
fn scalar_head_forward(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let n = linear_workgroup(group, groups);
    if (n >= live(params.entries, params.entries_count)) {
        return;
    }
    let first = row_of(n) * params.width;
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
        out[n] = sh_sum[0];
    }
}

@compute @workgroup_size(WG_SIZE)
fn scalar_head_dhidden(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = linear_workgroup(group, groups);
    if (index >= live(params.lists, params.lists_count)) {
        return;
    }
    let list = lists[index];
    var dout = 0.0;
    for (var i = list.start; i < list.end; i++) {
        dout += douts[listed(i)];
    }
    for (var c = local; c < params.width; c += WG_SIZE) {
        let i = list.id * params.width + c;
        dhidden[i] = select(0.0, dhidden[i], ADD) + dout * w[c];
    }
}

@compute @workgroup_size(DW_COLUMNS, DW_LANES)
fn scalar_head_dw(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
) {
    let first = linear_workgroup(group, groups) * DW_COLUMNS;
    if (first >= params.width) {
        return;
    }
    let count = live(params.entries, params.entries_count);
    let c = min(first + local.x, params.width - 1u);
    var sum = 0.0;
    for (var n = local.y; n < count; n += DW_LANES) {
        sum += douts[n] * hidden[row_of(n) * params.width + c];
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
