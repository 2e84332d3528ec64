// LayerNorm of one row by some lanes, which sum over the row by `row_sum` (the kernel's own).
//   mean = sum(x) / C, rstd = 1 / sqrt(sum((x - mean)^2) / C + eps), n = (x - mean) rstd
//   y = n weight + bias
//   g = dy weight, dx = rstd (g - sum(g) / C - n sum(g n) / C)
// Ba, Kiros and Hinton 2016, arXiv 1607.06450, equation 4. The variance is taken in two passes with
// the correction for the rounded mean (Chan, Golub and LeVeque 1983, equation 1.7).
//
// Bindings: x, dy, y, dx (rows, C); weight, bias (C); mean, rstd (rows).
struct Params {
    rows: u32,
    rows_count: u32,
    columns: u32,
    eps: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> x: array<Columns>;
@group(0) @binding(3) var<storage, read> weight: array<Columns>;
@group(0) @binding(4) var<storage, read> bias: array<Columns>;
@group(0) @binding(5) var<storage, read_write> y: array<Columns>;
@group(0) @binding(6) var<storage, read_write> mean_out: array<f32>;
@group(0) @binding(7) var<storage, read_write> rstd_out: array<f32>;
@group(0) @binding(8) var<storage, read> mean: array<f32>;
@group(0) @binding(9) var<storage, read> rstd: array<f32>;
@group(0) @binding(10) var<storage, read> dy: array<Columns>;
@group(0) @binding(11) var<storage, read_write> dx: array<Columns>;

// Lanes that do not `write` only take part in the sums.
fn normalise_row(row: u32, lane: u32, lanes: u32, write: bool) {
    let groups = params.columns / COLUMNS;
    let width = f32(params.columns);
    let first = row * groups;
    var sum = Columns();
    for (var c = lane; c < groups; c += lanes) {
        sum += x[first + c];
    }
    let rounded = row_sum(vec2<f32>(total(sum), 0.0), lane).x / width;
    var distance = Columns();
    var square = Columns();
    for (var c = lane; c < groups; c += lanes) {
        let d = x[first + c] - rounded;
        distance += d;
        square += d * d;
    }
    let sums = row_sum(vec2<f32>(total(distance), total(square)), lane) / width;
    let shift = sums.x;
    let scale = 1.0 / sqrt(max(sums.y - shift * shift, 0.0) + params.eps);
    if (write) {
        for (var c = lane; c < groups; c += lanes) {
            let normalised = ((x[first + c] - rounded) - shift) * scale;
            y[first + c] = normalised * weight[c] + bias[c];
        }
        if (lane == 0u) {
            mean_out[row] = rounded + shift;
            rstd_out[row] = scale;
        }
    }
}

fn row_gradient(row: u32, lane: u32, lanes: u32, write: bool) {
    let groups = params.columns / COLUMNS;
    let width = f32(params.columns);
    let first = row * groups;
    let centre = mean[row];
    let scale = rstd[row];
    var sum = Columns();
    var product = Columns();
    for (var c = lane; c < groups; c += lanes) {
        let g = dy[first + c] * weight[c];
        sum += g;
        product += g * ((x[first + c] - centre) * scale);
    }
    let means = row_sum(vec2<f32>(total(sum), total(product)), lane) / width;
    if (write) {
        for (var c = lane; c < groups; c += lanes) {
            let g = dy[first + c] * weight[c];
            let normalised = (x[first + c] - centre) * scale;
            let gradient = scale * (g - means.x - normalised * means.y);
            if (ACCUMULATE) {
                dx[first + c] += gradient;
            } else {
                dx[first + c] = gradient;
            }
        }
    }
}
