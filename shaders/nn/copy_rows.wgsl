// Copies rows, or columns of rows, by a table: keys and values into a cache, rows side by side.
//
//   out[copies[i].destination, c] = rows[copies[i].source, column + c]
//
// Bindings: 0 params, 1 counts (where live), 2 rows (R, stride; read), 3 copies (N, read), 4 out
// (M, width; written in the destinations of the live copies).
//
// Dispatch: a thread a column or four of one copy. No two live copies may have one destination.
struct Params {
    copies: u32,
    copies_count: u32,
    stride: u32,
    column: u32,
    width: u32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> rows: array<Columns>;
@group(0) @binding(3) var<storage, read> copies: array<RowCopy>;
@group(0) @binding(4) var<storage, read_write> out: array<Columns>;

@compute @workgroup_size(64)
fn copy_rows(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let width = params.width / COLUMNS;
    let item = linear_workgroup(group, groups) * 64u + local;
    let index = item / width;
    if (index >= live(params.copies, params.copies_count)) {
        return;
    }
    let copy = copies[index];
    let column = item % width;
    out[copy.destination * width + column] =
        rows[(copy.source * params.stride + params.column) / COLUMNS + column];
}
