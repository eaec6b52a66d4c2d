use crate::table::Table;
use crate::{Rendered, tool};

pub fn check(rendered: &[Rendered], table: &mut Table) {
    tool::parse(rendered, table);
}
