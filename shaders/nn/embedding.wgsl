// Token embeddings, with those of learned positions or without, for the tokens of one window of the token table.
//
//   embedding_forward: out[t] = token_table[tokens[t]], plus position_table[positions[t]] where
//     there are learned positions
//     bindings: 2 tokens (rows), 4 token_table (window_rows, C), and with learned positions
//     3 positions (rows), 5 position_table (contexts, C), all read; 6 out (rows, C), written
//   embedding_backward: dtable[list.id] += sum over list of dout[rows[i]], in the list's order
//     bindings: 7 lists (L), 8 list_rows, 9 dout (rows, C), all read; 10 dtable (window_rows, C),
//     added to
//
// Tables and dout are operands. Binding 0 holds the parameters, 1 the counts (where `items` is live). A window holds rows
// [window_first, window_first + window_rows) of its table; ids outside of it are left alone.
//
// Dispatch: a thread a column or four of one token (forward) or of one list (backward): `items` of
// either. Nothing is written past the live ones.
struct Params {
    items: u32,
    items_count: u32,
    columns: u32,
    window_first: u32,
    window_rows: u32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
}

struct RowList {
    id: u32,
    start: u32,
    end: u32,
    pad: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> tokens: array<u32>;
@group(0) @binding(6) var<storage, read_write> out: array<Columns>;
@group(0) @binding(7) var<storage, read> lists: array<RowList>;
@group(0) @binding(8) var<storage, read> list_rows: array<u32>;
@group(0) @binding(10) var<storage, read_write> dtable: array<Columns>;

// Rows that are summed on their own, so that the error of a long list stays small.
const BLOCK: u32 = 64u;

@compute @workgroup_size(64)
fn embedding_forward(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let width = params.columns / COLUMNS;
    let item = linear_workgroup(group, groups) * 64u + index;
    let row = item / width;
    if (row >= live(params.items, params.items_count)) {
        return;
    }
    // Below the window this wraps around to a large number.
    let id = tokens[row] - params.window_first;
    if (id >= params.window_rows) {
        return;
    }
    let column = item % width;
    out[item] = load_token_table(id * width + column) + position_columns(row, column);
}

fn list_value(i: u32, column: u32) -> Columns {
    return load_dout(list_rows[i] * (params.columns / COLUMNS) + column);
}

@compute @workgroup_size(64)
fn embedding_backward(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let width = params.columns / COLUMNS;
    let item = linear_workgroup(group, groups) * 64u + index;
    if (item / width >= live(params.items, params.items_count)) {
        return;
    }
    let list = lists[item / width];
    let id = list.id - params.window_first;
    if (id >= params.window_rows) {
        return;
    }
    let column = item % width;
    var sum = Columns();
    for (var first = list.start; first < list.end; first += BLOCK) {
        let end = min(first + BLOCK, list.end);
        let whole = end - (end - first) % 4u;
        var block = Columns();
        // Four loads at a time: they wait for each other otherwise.
        for (var i = first; i < whole; i += 4u) {
            block += (list_value(i, column) + list_value(i + 1u, column))
                + (list_value(i + 2u, column) + list_value(i + 3u, column));
        }
        for (var i = whole; i < end; i++) {
            block += list_value(i, column);
        }
        sum += block;
    }
    dtable[id * width + column] += sum;
}
