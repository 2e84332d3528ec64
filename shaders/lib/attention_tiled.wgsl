// What the forms of attention through workgroup memory share.
//
// A workgroup owns OWN rows of one head, queries or keys, which are 1 / PARTS of a tile, and walks
// over the rows of the other side in blocks of OTHER. A thread belongs to a group and a lane: it
// multiplies the four own rows of its group by the block's rows `lane` and `lane + LANES`, puts what
// weights come of that into workgroup memory, and then adds the block's rows, each times its weight,
// to those columns of its group's sums that its lane owns. A block goes from memory to registers
// while the one before is still in use.
//
// Rows have an odd stride in vec4, so that neighbouring rows begin in different banks.
const STRIDE: u32 = WIDTH4 | 1u;
const GROUPS: u32 = OWN / 4u;
const THREADS: u32 = GROUPS * LANES;
const PARTS: u32 = 32u / OWN;
const OWN_SIZE: u32 = OWN * WIDTH4;
const BLOCK_SIZE: u32 = OTHER * WIDTH4;

alias Own = array<array<vec4<f32>, STRIDE>, OWN>;
// One vec4 of a block's for each of a thread's copies.
alias Held = array<vec4<f32>, COPIES>;
// Four rows by four columns, for each of the lane's groups of columns.
alias Sums = array<mat4x4<f32>, COLUMNS>;

@group(0) @binding(2) var<storage, read> qkv: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> segments: array<Segment>;
@group(0) @binding(4) var<storage, read> tiles: array<Tile>;

var<workgroup> own: Own;
// By runs, so that a written-out loop over a run has constant offsets.
var<workgroup> block: array<array<array<vec4<f32>, STRIDE>, RUN>, OTHER / RUN>;
// Of each row of the block, those of the four own rows of each group.
var<workgroup> weights: array<array<array<vec4<f32>, GROUPS>, RUN>, OTHER / RUN>;

// Neighbours in a subgroup share a row of the block, and so do those two apart an own row: then
// hardware that takes vec4 by a quarter of 32 threads can serve two quarters at once.
fn group_of(thread: u32) -> u32 {
    return thread % 2u + thread / 16u % (GROUPS / 2u) * 2u;
}

fn lane_of(thread: u32) -> u32 {
    return thread / 2u % 8u + thread / (8u * GROUPS) * 8u;
}

// Where a group's vec4 stands among those of a row: it moves from row to row, since lanes side by
// side write to rows side by side.
fn slot(group: u32, row: u32) -> u32 {
    return (group + 2u * row) % GROUPS;
}

// Copies the own rows from `column` on; those past the last repeat it.
fn copy_own(first: u32, last: u32, column: u32, thread: u32) {
    // unroll
    for (var n = 0u; n < OWN_COPIES; n += 1u) {
        let i = thread + n * THREADS;
        if (i < OWN_SIZE) {
            let row = min(first + i / WIDTH4, last);
            own[i / WIDTH4][i % WIDTH4] = qkv[row * qkv_stride() + column + i % WIDTH4];
        }
    }
}

// Loads a block of keys or values, which begin at `column`; those past the last repeat it.
fn load_keys(segment: Segment, first: u32, last: u32, column: u32, thread: u32) -> Held {
    var held: Held;
    // unroll
    for (var n = 0u; n < COPIES; n += 1u) {
        let i = min(thread + n * THREADS, BLOCK_SIZE - 1u);
        let row = key_row(segment, min(first + i / WIDTH4, last));
        held[n] = qkv[row * qkv_stride() + column + i % WIDTH4];
    }
    return held;
}

fn store_block(held: Held, thread: u32) {
    // unroll
    for (var n = 0u; n < COPIES; n += 1u) {
        let i = thread + n * THREADS;
        if (i < BLOCK_SIZE) {
            let row = i / WIDTH4;
            block[row / RUN][row % RUN][i % WIDTH4] = held[n];
        }
    }
}

fn store_weights(group: u32, lane: u32, a: vec4<f32>, b: vec4<f32>) {
    let row = lane + LANES;
    weights[lane / RUN][lane % RUN][slot(group, lane)] = a;
    weights[row / RUN][row % RUN][slot(group, row)] = b;
}

// The products of the group's four rows and the lane's two.
fn own_products(group: u32, lane: u32) -> array<vec4<f32>, 2> {
    let row = group * 4u;
    let other = lane + LANES;
    var a = vec4<f32>(0.0);
    var b = vec4<f32>(0.0);
    for (var first = 0u; first < WIDTH4; first += STEP) {
        // unroll
        for (var i = 0u; i < STEP; i += 1u) {
            let d = first + i;
            let rows = mat4x4<f32>(
                own[row][d], own[row + 1u][d], own[row + 2u][d], own[row + 3u][d],
            );
            a = dots(a, block[lane / RUN][lane % RUN][d], rows);
            b = dots(b, block[other / RUN][other % RUN][d], rows);
        }
    }
    return array<vec4<f32>, 2>(a, b);
}

// Adds the block's rows, each times its weights.
fn add_rows(sums: ptr<function, Sums>, group: u32, lane: u32) {
    for (var run = 0u; run < OTHER / RUN; run += 1u) {
        // unroll
        for (var i = 0u; i < RUN; i += 1u) {
            let w = weights[run][i][slot(group, i)];
            // unroll
            for (var c = 0u; c < COLUMNS; c += 1u) {
                let x = block[run][i][min(lane + c * LANES, WIDTH4 - 1u)];
                (*sums)[c] += mat4x4<f32>(w.x * x, w.y * x, w.z * x, w.w * x);
            }
        }
    }
}
