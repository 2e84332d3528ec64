// LayerNorm of one row by some lanes, which sum over the row by `row_sum` (the kernel's own).
//   mean = sum(x) / C, rstd = 1 / sqrt(sum((x - mean)^2) / C + eps), n = (x - mean) rstd
//   y = n weight + bias
//   g = dy weight, dx = rstd (g - sum(g) / C - n sum(g n) / C)
//   dweight = sum over rows of dy n, dbias = sum over rows of dy
// Ba, Kiros and Hinton 2016, arXiv 1607.06450, equation 4. The variance is taken in two passes with
// the correction for the rounded mean (Chan, Golub and LeVeque 1983, equation 1.7).
//
// Bindings: bias, dbias (C); mean (rows).
@group(0) @binding(12) var<storage, read_write> mean_out: array<f32>;
@group(0) @binding(13) var<storage, read> mean: array<f32>;
@group(0) @binding(14) var<storage, read_write> dbias: array<Columns>;

alias Sums = vec2<f32>;

// Lanes that do not `write` only take part in the sums.
fn normalise_row(row: u32, lane: u32, lanes: u32, write: bool) {
    let groups = params.columns / COLUMNS;
    let width = f32(params.columns);
    let first = row * groups;
    var sum = Columns();
    for (var c = lane; c < groups; c += lanes) {
        sum += load_x(first + c);
    }
    let rounded = row_sum(Sums(total(sum), 0.0), lane).x / width;
    var distance = Columns();
    var square = Columns();
    for (var c = lane; c < groups; c += lanes) {
        let d = load_x(first + c) - rounded;
        distance += d;
        square += d * d;
    }
    let sums = row_sum(Sums(total(distance), total(square)), lane) / width;
    let shift = sums.x;
    let scale = 1.0 / sqrt(max(sums.y - shift * shift, 0.0) + params.eps);
    if (write) {
        for (var c = lane; c < groups; c += lanes) {
            let normalised = ((load_x(first + c) - rounded) - shift) * scale;
            y[first + c] = normalised * load_weight(c) + load_bias(c);
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
        let g = load_dy(first + c) * load_weight(c);
        sum += g;
        product += g * ((load_x(first + c) - centre) * scale);
    }
    let means = row_sum(Sums(total(sum), total(product)), lane) / width;
    if (write) {
        for (var c = lane; c < groups; c += lanes) {
            let g = load_dy(first + c) * load_weight(c);
            let normalised = (load_x(first + c) - centre) * scale;
            write_input_gradient(first + c, scale * (g - means.x - normalised * means.y));
        }
    }
}

// What one row adds to the gradients of weight and bias.
struct Terms {
    weight: Columns,
    bias: Columns,
}

fn terms(row: u32, column: u32) -> Terms {
    let at = row * (params.columns / COLUMNS) + column;
    let gradient = load_dy(at);
    return Terms(gradient * ((load_x(at) - mean[row]) * rstd[row]), gradient);
}

// The sums over the rows of one chunk, for one column: four rows at a time, whose loads would else
// wait for each other.
fn chunk_gradient(chunk: u32, rows: vec2<u32>, column: u32) {
    let groups = params.columns / COLUMNS;
    var sum = Terms();
    let whole = rows.y - (rows.y - rows.x) % 4u;
    for (var row = rows.x; row < whole; row += 4u) {
        let t0 = terms(row, column);
        let t1 = terms(row + 1u, column);
        let t2 = terms(row + 2u, column);
        let t3 = terms(row + 3u, column);
        sum.weight += (t0.weight + t1.weight) + (t2.weight + t3.weight);
        sum.bias += (t0.bias + t1.bias) + (t2.bias + t3.bias);
    }
    for (var row = whole; row < rows.y; row++) {
        let term = terms(row, column);
        sum.weight += term.weight;
        sum.bias += term.bias;
    }
    partials[2u * chunk * groups + column] = sum.weight;
    partials[(2u * chunk + 1u) * groups + column] = sum.bias;
}

fn total_gradient(chunks: u32, column: u32, thread: u32, write: bool) {
    let groups = params.columns / COLUMNS;
    let weight = sum_chunks(column, 2u * groups, chunks, thread);
    let bias = sum_chunks(groups + column, 2u * groups, chunks, thread);
    if (write) {
        dweight[column] += weight;
        dbias[column] += bias;
    }
}
