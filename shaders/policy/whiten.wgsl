// Advantages of a whole rollout brought to zero mean and unit variance.
//
//   y = (x - mean) / sqrt(variance + eps)  (+ mean, where the mean is not shifted away)
//
// over the n entries, among the first lens[m] of each row m, whose weight is not 0; the variance
// is unbiased (n - 1). With n <= 1 the variance counts as 0, so y is 0 (or x). Entries of weight
// 0 become 0; entries past lens[m] are not touched.
//
//   whiten_sums        { sum x, n } of each chunk          whiten_mean   the rounded mean of all
//   whiten_distances   { sum d, sum d^2 }, d = x - mean    whiten_spread the rest of the mean, the
//   whiten_apply       y                                                 factor
//
// Bindings: 0 params, 2 experience (M, columns; weight and advantage read, advantage written),
// 3 lens (M, read), 4 partials (1 + M chunks; read and written): first { rounded mean, n, rest of
// the mean, factor }, then a row { sum, sum, 0, 0 } a chunk of 2,048 columns of one row.
//
// Dispatch: sums, distances and apply a workgroup of 128 threads a chunk: thread t takes columns
// t, t + 128, ..., then a tree; mean and spread one workgroup of 128. The order of all sums is
// fixed.
//
// Source: the correction for the rounded mean Chan, Golub and LeVeque 1983, equation 1.7.
const WG_SIZE: u32 = 128u;
const CHUNK: u32 = 2048u;

struct Params {
    rows: u32,
    columns: u32,
    chunks: u32,
    keep_mean: u32,
    eps: f32,
}

struct Experience {
    logprob: f32,
    ref_logprob: f32,
    value: f32,
    advantage: f32,
    returns: f32,
    weight: f32,
    pad0: u32,
    pad1: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read_write> experience: array<Experience>;
@group(0) @binding(3) var<storage, read> lens: array<u32>;
@group(0) @binding(4) var<storage, read_write> partials: array<vec4<f32>>;

var<workgroup> sh_sums: array<vec2<f32>, WG_SIZE>;

// A thread's entries [first, end) of a chunk, in steps of WG_SIZE.
struct Chunk {
    first: u32,
    end: u32,
}

fn chunk_of(index: u32, local: u32) -> Chunk {
    let row = index / params.chunks;
    let column = (index % params.chunks) * CHUNK;
    let len = min(lens[row], params.columns);
    let at = row * params.columns;
    return Chunk(at + column + local, at + min(column + CHUNK, len));
}

// The sum over all threads, for thread 0.
fn total(own: vec2<f32>, local: u32) -> vec2<f32> {
    sh_sums[local] = own;
    for (var half = WG_SIZE / 2u; half > 0u; half /= 2u) {
        // Makes the sums of the previous round visible.
        workgroupBarrier();
        if (local < half) {
            sh_sums[local] += sh_sums[local + half];
        }
    }
    return sh_sums[0];
}

@compute @workgroup_size(WG_SIZE)
fn whiten_sums(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = linear_workgroup(group, groups);
    if (index >= params.rows * params.chunks) {
        return;
    }
    let chunk = chunk_of(index, local);
    var sums = vec2<f32>();
    for (var i = chunk.first; i < chunk.end; i += WG_SIZE) {
        if (experience[i].weight != 0.0) {
            sums += vec2<f32>(experience[i].advantage, 1.0);
        }
    }
    let all = total(sums, local);
    if (local == 0u) {
        partials[1u + index] = vec4<f32>(all, 0.0, 0.0);
    }
}

@compute @workgroup_size(WG_SIZE)
fn whiten_distances(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = linear_workgroup(group, groups);
    if (index >= params.rows * params.chunks) {
        return;
    }
    let chunk = chunk_of(index, local);
    let mean = partials[0].x;
    var sums = vec2<f32>();
    for (var i = chunk.first; i < chunk.end; i += WG_SIZE) {
        if (experience[i].weight != 0.0) {
            let d = experience[i].advantage - mean;
            sums += vec2<f32>(d, d * d);
        }
    }
    let all = total(sums, local);
    if (local == 0u) {
        partials[1u + index] = vec4<f32>(all, 0.0, 0.0);
    }
}

// The sum of all chunks' rows, for thread 0.
fn all_chunks(local: u32) -> vec2<f32> {
    let chunks = params.rows * params.chunks;
    var sums = vec2<f32>();
    for (var i = local; i < chunks; i += WG_SIZE) {
        sums += partials[1u + i].xy;
    }
    return total(sums, local);
}

@compute @workgroup_size(WG_SIZE)
fn whiten_mean(@builtin(local_invocation_index) local: u32) {
    let sums = all_chunks(local);
    if (local == 0u) {
        partials[0] = vec4<f32>(sums.x / max(sums.y, 1.0), sums.y, 0.0, 0.0);
    }
}

@compute @workgroup_size(WG_SIZE)
fn whiten_spread(@builtin(local_invocation_index) local: u32) {
    let sums = all_chunks(local);
    if (local == 0u) {
        let n = partials[0].y;
        let square = max(sums.y - sums.x * sums.x / max(n, 1.0), 0.0);
        let variance = square / max(n - 1.0, 1.0);
        partials[0].z = sums.x / max(n, 1.0);
        partials[0].w = 1.0 / sqrt(variance + params.eps);
    }
}

@compute @workgroup_size(WG_SIZE)
fn whiten_apply(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = linear_workgroup(group, groups);
    if (index >= params.rows * params.chunks) {
        return;
    }
    let chunk = chunk_of(index, local);
    let spread = partials[0];
    var kept = 0.0;
    if (params.keep_mean != 0u) {
        kept = spread.x + spread.z;
    }
    for (var i = chunk.first; i < chunk.end; i += WG_SIZE) {
        var y = 0.0;
        if (experience[i].weight != 0.0) {
            y = ((experience[i].advantage - spread.x) - spread.z) * spread.w + kept;
        }
        experience[i].advantage = y;
    }
}
