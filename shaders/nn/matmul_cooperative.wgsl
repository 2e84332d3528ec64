// Matrix product C = op(A) op(B) with an epilogue, by cooperative matrices: operands rounded to f16,
// products and sums in f32.
//
//   op(A) is (M, K): A is stored (M, K), or (K, M) where TRANSPOSE_A
//   op(B) is (K, N): B is stored (K, N), or (N, K) where TRANSPOSE_B
//
// Bindings: 0 params, 1 counts (live sizes, where used), 2 a (read), 3 b (read), 4 out (written),
// then what the epilogue adds. Every row of A and B starts at a multiple of four elements.
//
// Dispatch: one workgroup a tile of TILE x TILE outputs, eight rows of tiles at a time, column by
// column: tiles that are computed together share operands. Workgroups past the live rows return at
// once; nothing is written there.
//
// A tile is made by 2 x 2 subgroups of 32 lanes with SIDE x SIDE fragments of 16 x 16 outputs each.
// For every SLICE steps along k the workgroup copies both operands' parts to workgroup memory as
// they are stored, rounded; meanwhile it already loads the next ones. In the end each subgroup's
// fragments go, one by one, through workgroup memory to the epilogue.
//
// Where every tile and slice is whole, as sizes say that are not live along k, there are no EDGES:
// their code alone, never run, makes the others half as fast again.
//
// Drivers run this text without bounds checks: every index is within its array by what is written
// here.
const SLICE: u32 = 16u * STEPS;
const THREADS: u32 = 128u;

// Groups of four in a row of each operand's part, rows that the workgroup copies at a time, and
// groups from one row to the next in workgroup memory: two more, so that rows below each other lie
// in different banks.
const ALONG_K_A: bool = !TRANSPOSE_A;
const ALONG_K_B: bool = TRANSPOSE_B;
const ACROSS_A: u32 = select(TILE, SLICE, ALONG_K_A) / 4u;
const ACROSS_B: u32 = select(TILE, SLICE, ALONG_K_B) / 4u;
const DOWN_A: u32 = THREADS / ACROSS_A;
const DOWN_B: u32 = THREADS / ACROSS_B;
const STRIDE_A: u32 = ACROSS_A + 2u;
const STRIDE_B: u32 = ACROSS_B + 2u;
// Groups from one row of a fragment of results to the next, and of a subgroup's fragment.
const STRIDE_C: u32 = 5u;
const FRAGMENT_SIZE: u32 = 16u * STRIDE_C;

// The longer of both forms: TILE rows of SLICE elements.
var<workgroup> tile_a: array<HalfFour, TILE * (SLICE / 4u + 2u)>;
var<workgroup> tile_b: array<HalfFour, TILE * (SLICE / 4u + 2u)>;
var<workgroup> tile_c: array<vec4<f32>, 4u * FRAGMENT_SIZE>;

// The first output of tile `index`.
fn tile_of(index: u32, tiles: vec2<u32>) -> vec2<u32> {
    let first = index / (8u * tiles.y) * 8u;
    let rows = min(tiles.x - first, 8u);
    let within = index - first * tiles.y;
    return vec2<u32>(first + within % rows, within / rows) * TILE;
}

// Which of the four elements from `first` on are before `end`.
fn before(first: u32, end: u32) -> vec4<bool> {
    return vec4<u32>(first, first + 1u, first + 2u, first + 3u) < vec4<u32>(end);
}

// Four elements at a row and column of A. Those past the matrix are some others of it; those past
// the end of k are zero, since anything may be there, infinity included.
fn edge_a(place: vec2<u32>, end: u32) -> vec4<f32> {
    if (ALONG_K_A) {
        let four = load_a(min(place.x, params.m - 1u), min(place.y, params.k - 1u));
        return select(vec4<f32>(), four, before(place.y, end));
    }
    let four = load_a(min(place.x, params.k - 1u), min(place.y, params.m - 1u));
    return select(vec4<f32>(), four, place.x < end);
}

fn edge_b(place: vec2<u32>, end: u32) -> vec4<f32> {
    if (ALONG_K_B) {
        let four = load_b(min(place.x, params.n - 1u), min(place.y, params.k - 1u));
        return select(vec4<f32>(), four, before(place.y, end));
    }
    let four = load_b(min(place.x, params.k - 1u), min(place.y, params.n - 1u));
    return select(vec4<f32>(), four, place.x < end);
}

// A thread's groups of the slice of op(A) from k on.
fn fetch_a(next: ptr<function, array<vec4<f32>, CHUNKS>>, thread: u32, row: u32, k: u32, end: u32) {
    let corner = select(vec2<u32>(k, row), vec2<u32>(row, k), ALONG_K_A);
    let place = corner + vec2<u32>(thread / ACROSS_A, thread % ACROSS_A * 4u);
    if (!EDGES || (k + SLICE <= end && row + TILE <= params.m)) {
        let at = (params.a_offset + place.x * params.a_stride + place.y) / 4u;
        let down = DOWN_A * (params.a_stride / 4u);
        // unroll
        for (var i = 0u; i < CHUNKS; i += 1u) {
            (*next)[i] = a[at + i * down];
        }
        return;
    }
    // unroll
    for (var i = 0u; i < CHUNKS; i += 1u) {
        (*next)[i] = edge_a(place + vec2<u32>(i * DOWN_A, 0u), end);
    }
}

fn fetch_b(next: ptr<function, array<vec4<f32>, CHUNKS>>, thread: u32, col: u32, k: u32, end: u32) {
    let corner = select(vec2<u32>(k, col), vec2<u32>(col, k), ALONG_K_B);
    let place = corner + vec2<u32>(thread / ACROSS_B, thread % ACROSS_B * 4u);
    if (!EDGES || (k + SLICE <= end && col + TILE <= params.n)) {
        let at = (params.b_offset + place.x * params.b_stride + place.y) / 4u;
        let down = DOWN_B * (params.b_stride / 4u);
        // unroll
        for (var i = 0u; i < CHUNKS; i += 1u) {
            (*next)[i] = b[at + i * down];
        }
        return;
    }
    // unroll
    for (var i = 0u; i < CHUNKS; i += 1u) {
        (*next)[i] = edge_b(place + vec2<u32>(i * DOWN_B, 0u), end);
    }
}

// Where the fragment begins that has this first row of op(A), or column of op(B), and step of k.
fn place_a(row: u32, step: u32) -> u32 {
    return select(step * STRIDE_A + row / 4u, row * STRIDE_A + step / 4u, ALONG_K_A);
}

fn place_b(col: u32, step: u32) -> u32 {
    return select(step * STRIDE_B + col / 4u, col * STRIDE_B + step / 4u, ALONG_K_B);
}

// Stores a subgroup's fragment, which lies at `own` in `tile_c`, as the outputs from `row` and `col`
// on: two groups of four a lane.
fn store_fragment(lane: u32, own: u32, row: u32, col: u32, m: u32) {
    for (var i = lane; i < 64u; i += 32u) {
        let below = row + i / 4u;
        if (below < m) {
            store_row(below, col + i % 4u * 4u, tile_c[own + i / 4u * STRIDE_C + i % 4u]);
        }
    }
}

@compute @workgroup_size(THREADS)
fn matmul_cooperative(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
    @builtin(subgroup_id) subgroup: u32,
) {
    let m = live_from(params.m, params.m_count, params.start);
    let end = live_from(params.k, params.k_count, params.start);
    let tiles = (vec2<u32>(params.m, params.n) + TILE - 1u) / TILE;
    let index = linear_workgroup(group, groups);
    if (index >= tiles.x * tiles.y) {
        return;
    }
    let tile = tile_of(index, tiles);
    if (tile.x >= m) {
        return;
    }
    let to_a = thread / ACROSS_A * STRIDE_A + thread % ACROSS_A;
    let to_b = thread / ACROSS_B * STRIDE_B + thread % ACROSS_B;
    let row = subgroup / 2u * (TILE / 2u);
    let col = subgroup % 2u * (TILE / 2u);
    var next_a: array<vec4<f32>, CHUNKS>;
    var next_b: array<vec4<f32>, CHUNKS>;
    var part_a: array<FragmentA, SIDE>;
    var part_b: array<FragmentB, SIDE>;
    var sums: array<FragmentC, FRAGMENTS>;
    if (end > 0u) {
        fetch_a(&next_a, thread, tile.x, 0u, end);
        fetch_b(&next_b, thread, tile.y, 0u, end);
    }
    for (var k = 0u; k < end; k += SLICE) {
        // The slice before has been read.
        workgroupBarrier();
        // unroll
        for (var i = 0u; i < CHUNKS; i += 1u) {
            tile_a[to_a + i * DOWN_A * STRIDE_A] = halves(next_a[i]);
            tile_b[to_b + i * DOWN_B * STRIDE_B] = halves(next_b[i]);
        }
        // The slice is there.
        workgroupBarrier();
        if (k + SLICE < end) {
            fetch_a(&next_a, thread, tile.x, k + SLICE, end);
            fetch_b(&next_b, thread, tile.y, k + SLICE, end);
        }
        // unroll
        for (var step = 0u; step < STEPS; step += 1u) {
            // unroll
            for (var i = 0u; i < SIDE; i += 1u) {
                part_a[i] = fragment_a(place_a(row + i * 16u, step * 16u));
                part_b[i] = fragment_b(place_b(col + i * 16u, step * 16u));
            }
            // unroll
            for (var i = 0u; i < FRAGMENTS; i += 1u) {
                sums[i] = multiply_add(part_a[i / SIDE], part_b[i % SIDE], sums[i]);
            }
        }
    }
    let own = subgroup * FRAGMENT_SIZE;
    // unroll
    for (var i = 0u; i < FRAGMENTS; i += 1u) {
        put_fragment(sums[i], own);
        // The fragments are there.
        workgroupBarrier();
        let first = tile + vec2<u32>(row + i / SIDE * 16u, col + i % SIDE * 16u);
        store_fragment(thread % 32u, own, first.x, first.y, m);
        // They have been read.
        workgroupBarrier();
    }
}
