// Attention of one token a sequence to the keys and values that a cache holds.
//
//   s_j = q . k_j / sqrt(D),  out = sum_j exp(s_j) v_j / sum_j exp(s_j)
//
// over the rows [prefix_start, + prefix_len) of the sequence's prompt, which other sequences may
// share, and its own rows [start, + len). The softmax is computed online, 64 keys a step.
//
// Bindings: 0 params, 1 counts (where live), 2 qkv (B, (H + 2G) D, of which the queries are read),
// 3 cache (rows, 2 G D; read), 4 sequences (B, read), 5 out (B, H D; written in the live rows).
//
// Dispatch: a workgroup of 64 a sequence and query head. For the scores a thread takes a key; for
// the weighted sum of the values a thread takes four columns and every SLICES-th key.
//
// Sources: attention (arXiv 1706.03762, section 3.2.1), grouped queries (arXiv 2305.13245, section
// 2.2), online softmax (arXiv 1805.02867, section 3).
const THREADS: u32 = 64u;
const SLICES: u32 = THREADS / WIDTH4;

var<workgroup> sh_scores: array<f32, THREADS>;
var<workgroup> sh_weights: array<f32, THREADS>;
var<workgroup> sh_sums: array<vec4<f32>, THREADS>;

@compute @workgroup_size(THREADS)
fn attention_decode(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = linear_workgroup(group, groups);
    let row = index / params.heads;
    let head = index % params.heads;
    if (row >= live(params.rows, params.rows_count)) {
        return;
    }
    let kv_head = head / (params.heads / params.kv_heads);
    let sequence = sequences[row];
    let keys = sequence.prefix_len + sequence.len;
    let column = local % WIDTH4;
    let slice = local / WIDTH4;
    var query: array<vec4<f32>, WIDTH4>;
    for (var d = 0u; d < WIDTH4; d++) {
        query[d] = qkv[query_at(row, head) + d];
    }
    var highest = LOWEST;
    var total = 0.0;
    var sum = vec4<f32>(0.0);
    for (var first = 0u; first < keys; first += THREADS) {
        let j = first + local;
        var score = LOWEST;
        if (j < keys) {
            let key = key_at(sequence, j, kv_head);
            score = 0.0;
            for (var d = 0u; d < WIDTH4; d++) {
                score += dot(query[d], cache[key + d]);
            }
            score *= params.scale;
        }
        sh_scores[local] = score;
        // Makes the scores visible; the weights of the previous step have been used.
        workgroupBarrier();
        var higher = highest;
        for (var i = 0u; i < THREADS; i++) {
            higher = max(higher, sh_scores[i]);
        }
        let shrink = exp(highest - higher);
        let weight = select(0.0, exp(score - higher), j < keys);
        highest = higher;
        total = total * shrink + weight;
        sh_weights[local] = weight;
        // Makes the weights visible; the scores have been used.
        workgroupBarrier();
        sum *= shrink;
        if (slice < SLICES) {
            let end = min(THREADS, keys - first);
            for (var i = slice; i < end; i += SLICES) {
                let value = key_at(sequence, first + i, kv_head) + params.kv_heads * WIDTH4;
                sum += sh_weights[i] * cache[value + column];
            }
        }
    }
    sh_scores[local] = total;
    sh_sums[local] = sum;
    // Makes the threads' sums visible.
    workgroupBarrier();
    if (local < WIDTH4) {
        var all = 0.0;
        for (var i = 0u; i < THREADS; i++) {
            all += sh_scores[i];
        }
        var values = vec4<f32>(0.0);
        for (var i = 0u; i < SLICES; i++) {
            values += sh_sums[i * WIDTH4 + local];
        }
        out[out_at(row, head) + local] = values / all;
    }
}
