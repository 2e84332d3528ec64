// Lists whose entries are consecutive.
fn listed(i: u32) -> u32 {
    return i;
}
