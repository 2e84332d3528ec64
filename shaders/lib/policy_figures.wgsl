// Figures of a loss, sixteen columns: sums, but for column 8, the smallest ratio, and column 9, the
// largest. Here: those of a workgroup of 64 threads, added by a tree and left behind as a row of
// `partials`.
alias Figures = mat4x4<f32>;

@group(0) @binding(7) var<storage, read_write> partials: array<vec4<f32>>;

var<workgroup> sh_figures: array<Figures, 64>;

fn write_figures(row: u32, figures: Figures) {
    partials[4u * row] = figures[0];
    partials[4u * row + 1u] = figures[1];
    partials[4u * row + 2u] = figures[2];
    partials[4u * row + 3u] = figures[3];
}

fn joined(a: Figures, b: Figures) -> Figures {
    var sum = a + b;
    sum[2].x = min(a[2].x, b[2].x);
    sum[2].y = max(a[2].y, b[2].y);
    return sum;
}

// Writes the figures of all threads as a row of partials. All threads must come here.
fn write_workgroup_figures(row: u32, own: Figures, local: u32) {
    sh_figures[local] = own;
    for (var half = 32u; half > 0u; half /= 2u) {
        // Makes the figures of the previous round visible.
        workgroupBarrier();
        if (local < half) {
            sh_figures[local] = joined(sh_figures[local], sh_figures[local + half]);
        }
    }
    if (local == 0u) {
        write_figures(row, sh_figures[0]);
    }
}
