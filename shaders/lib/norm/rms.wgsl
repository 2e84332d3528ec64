// RMSNorm of one row by some lanes, which sum over the row by `row_sum` (the kernel's own).
//   rstd = 1 / sqrt(sum(x^2) / C + eps), n = x rstd, y = n weight
//   g = dy weight, dx = rstd (g - n sum(g n) / C)
//   dweight = sum over rows of dy n
// Zhang and Sennrich 2019, arXiv 1910.07467, equation 4.
alias Sums = f32;

// Lanes that do not `write` only take part in the sums.
fn normalise_row(row: u32, lane: u32, lanes: u32, write: bool) {
    let groups = params.columns / COLUMNS;
    let first = row * groups;
    var square = Columns();
    for (var c = lane; c < groups; c += lanes) {
        let value = load_x(first + c);
        square += value * value;
    }
    let mean_square = row_sum(total(square), lane) / f32(params.columns);
    let scale = 1.0 / sqrt(mean_square + params.eps);
    if (write) {
        for (var c = lane; c < groups; c += lanes) {
            y[first + c] = load_x(first + c) * scale * load_weight(c);
        }
        if (lane == 0u) {
            rstd_out[row] = scale;
        }
    }
}

fn row_gradient(row: u32, lane: u32, lanes: u32, write: bool) {
    let groups = params.columns / COLUMNS;
    let first = row * groups;
    let scale = rstd[row];
    var product = Columns();
    for (var c = lane; c < groups; c += lanes) {
        product += load_dy(first + c) * load_weight(c) * (load_x(first + c) * scale);
    }
    let mean_product = row_sum(total(product), lane) / f32(params.columns);
    if (write) {
        for (var c = lane; c < groups; c += lanes) {
            let g = load_dy(first + c) * load_weight(c);
            let normalised = load_x(first + c) * scale;
            write_input_gradient(first + c, scale * (g - normalised * mean_product));
        }
    }
}

// What one row adds to the gradient of the weight.
fn term(row: u32, column: u32) -> Columns {
    let at = row * (params.columns / COLUMNS) + column;
    return load_dy(at) * (load_x(at) * rstd[row]);
}

// The sum over the rows of one chunk, for one column: four rows at a time, whose loads would else
// wait for each other.
fn chunk_gradient(chunk: u32, rows: vec2<u32>, column: u32) {
    var sum = Columns();
    let whole = rows.y - (rows.y - rows.x) % 4u;
    for (var row = rows.x; row < whole; row += 4u) {
        sum += (term(row, column) + term(row + 1u, column))
            + (term(row + 2u, column) + term(row + 3u, column));
    }
    for (var row = whole; row < rows.y; row++) {
        sum += term(row, column);
    }
    partials[chunk * (params.columns / COLUMNS) + column] = sum;
}

fn total_gradient(chunks: u32, column: u32, thread: u32, write: bool) {
    let weight = sum_chunks(column, params.columns / COLUMNS, chunks, thread);
    if (write) {
        dweight[column] += weight;
    }
}
