// Draws the next token of each sequence from its row of logits, and moves the sequence on.
//
//   p_i = exp((z_i - max z) / temperature),  logprob = (z - max z) / temperature - ln sum p
//
// In this order: the `top_k` largest logits are kept, then, of what they hold of the probability,
// the largest p that sum to `top_p`. Both are a threshold: the largest t for which the logits of
// at least t are enough, found by bits. Equals of the last one kept are kept, and at least one is.
// sampling_logprob is over the kept tokens alone; where greedy, the first largest logit is taken
// and sampling_logprob is 0.
//
// The draw inverts the cumulative sum of the kept p: one random number a token, where the Gumbel
// form would need one a logit. The sum runs through a thread's logits, then the next thread's, which
// is an order as good as any and lets threads read side by side. The number is a function of the
// seed, the sequence's id and its length.
//
// Bindings: 0 params, 1 counts (where live), 2 settings (uniform), 3 logits (B, stride; read),
// 4 stops (a bit a token, read), 5 sequences (B, read and written), 6 tokens (B), 7 positions (B)
// and 8 appends (B), written: the next row of each sequence and where its keys go; 9 sampled
// (B, new_tokens), written at the sequence's length.
//
// Dispatch: a workgroup of GROUP * GROUP threads a sequence, as many as the vocabulary keeps busy. Finished sequences are left alone; so is one whose
// logits are not finite: it never finishes.
//
// Sources: top-k Fan et al. 2018 (arXiv 1805.04833, section 5.4), top-p Holtzman et al. 2020
// (arXiv 1904.09751, section 3.1).
const THREADS: u32 = GROUP * GROUP;
const LOWEST: f32 = -3.4028234e38;

struct Params {
    rows: u32,
    rows_count: u32,
    vocab: u32,
    stride: u32,
    new_tokens: u32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
}

struct SampleSettings {
    temperature: f32,
    top_p: f32,
    top_k: u32,
    greedy: u32,
    max_new_tokens: u32,
    seed_low: u32,
    seed_high: u32,
    pad: u32,
}

struct Sampled {
    token: u32,
    logprob: f32,
    sampling_logprob: f32,
    pad: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<uniform> settings: SampleSettings;
@group(0) @binding(3) var<storage, read> logits: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> stops: array<u32>;
@group(0) @binding(5) var<storage, read_write> sequences: array<Sequence>;
@group(0) @binding(6) var<storage, read_write> tokens: array<u32>;
@group(0) @binding(7) var<storage, read_write> positions: array<u32>;
@group(0) @binding(8) var<storage, read_write> appends: array<RowCopy>;
@group(0) @binding(9) var<storage, read_write> sampled: array<Sampled>;

var<workgroup> sh_finished: u32;
var<workgroup> sh_pick: Pick;
var<workgroup> sh_values: array<vec4<f32>, THREADS>;
var<workgroup> sh_groups: array<vec4<f32>, GROUP>;
var<workgroup> sh_best: array<Best, THREADS>;
var<workgroup> sh_group_best: array<Best, GROUP>;

struct Pick {
    thread: u32,
    before: f32,
}

// A logit and its token.
struct Best {
    logit: f32,
    token: u32,
}

fn better(a: Best, b: Best) -> Best {
    if (b.logit > a.logit || (b.logit == a.logit && b.token < a.token)) {
        return b;
    }
    return a;
}

// What a thread's logits are compared with.
struct Row {
    first: u32,
    fours: u32,
    highest: f32,
}

fn columns_of(i: u32) -> vec4<u32> {
    return vec4<u32>(4u * i) + vec4<u32>(0u, 1u, 2u, 3u);
}

fn probabilities(row: Row, i: u32) -> vec4<f32> {
    let p = exp((logits[row.first + i] - row.highest) / settings.temperature);
    return select(vec4<f32>(0.0), p, columns_of(i) < vec4<u32>(params.vocab));
}

// Numbers in the order of the logits, with 0 for what is past the row's end and one number for
// both zeros.
fn ranks(row: Row, i: u32) -> vec4<u32> {
    let z = logits[row.first + i];
    let bits = select(bitcast<vec4<u32>>(z), vec4<u32>(0u), z == vec4<f32>(0.0));
    let sign = vec4<u32>(0x80000000u);
    let rank = select(bits | sign, ~bits, (bits & sign) == sign);
    return select(vec4<u32>(0u), rank, columns_of(i) < vec4<u32>(params.vocab));
}

// The first of the largest logits.
fn likeliest(local: u32, first: u32, fours: u32) -> Best {
    var best = Best(LOWEST, params.vocab - 1u);
    for (var i = local; i < fours; i += THREADS) {
        let z = logits[first + i];
        for (var c = 0u; c < 4u; c++) {
            if (4u * i + c < params.vocab) {
                best = better(best, Best(z[c], 4u * i + c));
            }
        }
    }
    sh_best[local] = best;
    // Makes the threads' best visible.
    workgroupBarrier();
    if (local < GROUP) {
        best = sh_best[local * GROUP];
        for (var i = 1u; i < GROUP; i++) {
            best = better(best, sh_best[local * GROUP + i]);
        }
        sh_group_best[local] = best;
    }
    // Makes the groups' best visible.
    workgroupBarrier();
    best = sh_group_best[0];
    for (var i = 1u; i < GROUP; i++) {
        best = better(best, sh_group_best[i]);
    }
    return best;
}

// Puts the threads' values and their sums in groups of 16 where all threads see them.
fn share(local: u32, own: vec4<f32>) {
    sh_values[local] = own;
    // Makes the values visible; the sums of the last call have been used by all before.
    workgroupBarrier();
    if (local < GROUP) {
        var sum = vec4<f32>(0.0);
        for (var i = 0u; i < GROUP; i++) {
            sum += sh_values[local * GROUP + i];
        }
        sh_groups[local] = sum;
    }
    // Makes the groups' sums visible.
    workgroupBarrier();
}

fn groups_before(group: u32) -> vec4<f32> {
    var sum = vec4<f32>(0.0);
    for (var i = 0u; i < group; i++) {
        sum += sh_groups[i];
    }
    return sum;
}

fn sum_of_all(local: u32, own: vec4<f32>) -> vec4<f32> {
    share(local, own);
    return groups_before(GROUP);
}

// The sum of a thread's p of at least a threshold.
fn kept_by_thread(local: u32, row: Row, threshold: u32) -> f32 {
    var sum = 0.0;
    for (var i = local; i < row.fours; i += THREADS) {
        let kept = ranks(row, i) >= vec4<u32>(threshold);
        sum += dot(select(vec4<f32>(0.0), probabilities(row, i), kept), vec4<f32>(1.0));
    }
    return sum;
}

// The largest threshold of at least `floor` for which the logits above it are enough: their number
// or, where `by_mass`, the sum of their p reaches `goal`. Two bits a step, by three thresholds at a
// time; rounding keeps the order of these sums, since all are added up in one way.
fn threshold_for(local: u32, row: Row, by_mass: bool, floor: u32, goal: f32) -> u32 {
    var low = 0u;
    for (var width = 0x40000000u; width > 0u; width /= 4u) {
        var sums = vec4<f32>(0.0);
        for (var i = local; i < row.fours; i += THREADS) {
            let rank = ranks(row, i);
            var amount = vec4<f32>(1.0);
            if (by_mass) {
                amount = probabilities(row, i);
            }
            amount = select(vec4<f32>(0.0), amount, rank >= vec4<u32>(max(floor, 1u)));
            for (var t = 0u; t < 3u; t++) {
                let above = rank >= vec4<u32>(low + (t + 1u) * width);
                sums[t] += dot(select(vec4<f32>(0.0), amount, above), vec4<f32>(1.0));
            }
        }
        let all = sum_of_all(local, sums);
        let enough = select(vec3<u32>(0u), vec3<u32>(1u), all.xyz >= vec3<f32>(goal));
        low += width * (enough.x + enough.y + enough.z);
    }
    return max(low, floor);
}

// What is remembered of a row once its distribution is known.
struct Distribution {
    threshold: u32,
    // ln of the sum of all p, and of those kept.
    all: f32,
    kept: f32,
}

// Moves a sequence on by one token.
fn advance(index: u32, sequence: Sequence, row: Row, best: Best, distribution: Distribution) {
    let token = best.token;
    let scaled = (best.logit - row.highest) / settings.temperature;
    var choice = Sampled(token, scaled - distribution.all, scaled - distribution.kept, 0u);
    if (settings.greedy != 0u) {
        choice.sampling_logprob = 0.0;
    }
    sampled[index * params.new_tokens + sequence.len] = choice;
    let stops_here = ((stops[token / 32u] >> (token % 32u)) & 1u) == 1u;
    let full = sequence.len + 1u >= settings.max_new_tokens;
    sequences[index].len = sequence.len + 1u;
    sequences[index].finished = select(select(0u, 2u, full), 1u, stops_here);
    tokens[index] = token;
    positions[index] = sequence.prefix_len + sequence.len;
    appends[index] = RowCopy(index, sequence.start + sequence.len);
}

// The thread among whose logits the running sum of all kept p passes `aim`, and the sum before it;
// what rounding leaves past the sum falls to the last thread that has a share. One thread decides,
// so that exactly one is picked.
fn pick(aim: f32) -> Pick {
    var sum = 0.0;
    var choice = Pick(0u, 0.0);
    for (var thread = 0u; thread < THREADS; thread++) {
        let share = sh_values[thread].x;
        if (share > 0.0) {
            choice = Pick(thread, sum);
        }
        sum += share;
        if (sum > aim) {
            break;
        }
    }
    return choice;
}

// A thread's logit at which the running sum of its kept p passes `rest`.
fn find(local: u32, row: Row, threshold: u32, rest: f32) -> Best {
    var sum = 0.0;
    var found = false;
    var choice = Best(LOWEST, 0u);
    for (var i = local; i < row.fours; i += THREADS) {
        let z = logits[row.first + i];
        let p = probabilities(row, i);
        let rank = ranks(row, i);
        for (var c = 0u; c < 4u; c++) {
            // What rounding leaves past the sum falls to the last token that has a share.
            if (!found && rank[c] >= threshold && p[c] > 0.0) {
                choice = Best(z[c], 4u * i + c);
                sum += p[c];
                found = sum > rest;
            }
        }
    }
    return choice;
}

@compute @workgroup_size(THREADS)
fn sample(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = linear_workgroup(group, groups);
    if (index >= live(params.rows, params.rows_count)) {
        return;
    }
    // Read before the barriers: one thread will change it after them.
    let sequence = sequences[index];
    if (local == 0u) {
        sh_finished = sequence.finished;
    }
    if (workgroupUniformLoad(&sh_finished) != 0u) {
        return;
    }
    let first = index * params.stride / 4u;
    let fours = (params.vocab + 3u) / 4u;
    let best = likeliest(local, first, fours);
    let row = Row(first, fours, best.logit);
    var own = kept_by_thread(local, row, 0u);
    let all = sum_of_all(local, vec4<f32>(own)).x;
    var distribution = Distribution(0u, log(all), log(all));
    if (settings.greedy != 0u) {
        if (local == 0u && all >= 1.0) {
            advance(index, sequence, row, best, distribution);
        }
        return;
    }
    if (settings.top_k > 0u && settings.top_k < params.vocab) {
        let goal = f32(settings.top_k);
        distribution.threshold = threshold_for(local, row, false, 0u, goal);
    }
    if (settings.top_p < 1.0) {
        let floor = distribution.threshold;
        let mass = sum_of_all(local, vec4<f32>(kept_by_thread(local, row, floor))).x;
        distribution.threshold = threshold_for(local, row, true, floor, settings.top_p * mass);
    }
    own = kept_by_thread(local, row, distribution.threshold);
    share(local, vec4<f32>(own));
    let kept = groups_before(GROUP).x;
    distribution.kept = log(kept);
    let counter = vec4<u32>(sequence.len, sequence.id_low, sequence.id_high, 0u);
    let bits = philox(counter, vec2<u32>(settings.seed_low, settings.seed_high)).x;
    let aim = unit(bits) * kept;
    if (local == 0u) {
        sh_pick = pick(aim);
    }
    // Makes the pick visible.
    workgroupBarrier();
    let picked = sh_pick;
    if (local == picked.thread && all >= 1.0) {
        let choice = find(local, row, distribution.threshold, aim - picked.before);
        advance(index, sequence, row, choice, distribution);
    }
}
