// The hidden states of a chunk of targets, side by side, and the way back.
//
//   language_head_gather    gathered[i, c] = hidden[targets[start + i].row, c]
//   language_head_scatter   dhidden[row, c] = sum of dgathered[n, c] over the row's targets n, for
//                           the rows of the target lists only: the others are cleared before
//
// Bindings: 0 params, 1 counts (where live), 2 targets (N, read), 3 hidden (T, C; read), 4 gathered
// (chunk, C; written), 5 lists (target lists, their targets consecutive; read), 6 dgathered (N, C;
// read), 7 dhidden (T, C; written).
//
// Dispatch: a workgroup of 64 a target or a list. Sums run in the order of the targets. Nothing is
// written past the live sizes.
const WG_SIZE: u32 = 64u;

struct Params {
    rows: u32,
    count: u32,
    start: u32,
    width: u32,
}

struct Target {
    row: u32,
    token: u32,
    answer: u32,
    weight: f32,
}

struct RowList {
    id: u32,
    start: u32,
    end: u32,
    pad: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> targets: array<Target>;
@group(0) @binding(3) var<storage, read> hidden: array<f32>;
@group(0) @binding(4) var<storage, read_write> gathered: array<f32>;
@group(0) @binding(5) var<storage, read> lists: array<RowList>;
@group(0) @binding(6) var<storage, read> dgathered: array<f32>;
@group(0) @binding(7) var<storage, read_write> dhidden: array<f32>;

@compute @workgroup_size(WG_SIZE)
fn language_head_gather(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = linear_workgroup(group, groups);
    if (i >= live_from(params.rows, params.count, params.start)) {
        return;
    }
    let first = targets[params.start + i].row * params.width;
    for (var c = local; c < params.width; c += WG_SIZE) {
        gathered[i * params.width + c] = hidden[first + c];
    }
}

@compute @workgroup_size(WG_SIZE)
fn language_head_scatter(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = linear_workgroup(group, groups);
    if (index >= live(params.rows, params.count)) {
        return;
    }
    let list = lists[index];
    for (var c = local; c < params.width; c += WG_SIZE) {
        var sum = 0.0;
        for (var n = list.start; n < list.end; n++) {
            sum += dgathered[n * params.width + c];
        }
        dhidden[list.id * params.width + c] = sum;
    }
}
