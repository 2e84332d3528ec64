// Adds the figures that the workgroups of a policy loss left behind and writes them into one row of
// a ring of metrics, (slots, 16). Columns are sums; of column 8 the smallest value is taken, of
// column 9 the largest.
//
// Bindings: 0 params, 1 counts (where live), 2 partials (rows, 16; read), 3 metrics (slots, 16;
// written at row `slot` modulo slots). There is one row of partials for every `share` items.
//
// Dispatch: one workgroup of 128 threads, eight a column: each adds blocks of 32 rows, then the
// blocks; then a tree. The order of the sums is fixed, and the rounding error of a million rows is
// near that of a few hundred.
const WG_SIZE: u32 = 128u;
const COLUMNS: u32 = 16u;
const LANES: u32 = 8u;
const BLOCK: u32 = 32u;

struct Params {
    items: u32,
    items_count: u32,
    share: u32,
    slots: u32,
    // What column 8 holds where there are no rows.
    smallest: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> partials: array<f32>;
@group(0) @binding(3) var<storage, read_write> metrics: array<f32>;

var<workgroup> sh_total: array<f32, WG_SIZE>;

fn neutral(column: u32) -> f32 {
    return select(0.0, params.smallest, column == 8u);
}

fn joined(a: f32, b: f32, column: u32) -> f32 {
    if (column == 8u) {
        return min(a, b);
    }
    return select(a + b, max(a, b), column == 9u);
}

@compute @workgroup_size(WG_SIZE)
fn metrics_row(@builtin(local_invocation_index) local: u32) {
    let column = local % COLUMNS;
    let lane = local / COLUMNS;
    let items = live(params.items, params.items_count);
    let rows = items / params.share + select(0u, 1u, items % params.share != 0u);
    var total = neutral(column);
    for (var first = 0u; first < rows; first += LANES * BLOCK) {
        let end = min(first + LANES * BLOCK, rows);
        var block = neutral(column);
        for (var row = first + lane; row < end; row += LANES) {
            block = joined(block, partials[row * COLUMNS + column], column);
        }
        total = joined(total, block, column);
    }
    sh_total[local] = total;
    for (var half = WG_SIZE / 2u; half >= COLUMNS; half /= 2u) {
        // Makes the totals of the previous round visible.
        workgroupBarrier();
        if (local < half) {
            sh_total[local] = joined(sh_total[local], sh_total[local + half], column);
        }
    }
    if (local < COLUMNS) {
        metrics[(metrics_slot() % params.slots) * COLUMNS + column] = sh_total[local];
    }
}
