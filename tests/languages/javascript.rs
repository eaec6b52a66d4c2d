//! JavaScript: by default `node --check`; in the full run also `tsc` over every rendering, which reads its JSDoc and knows
//! the real packages, and the generated tests.

use serde_json::json;

use crate::table::Table;
use crate::{Rendered, full, npm, tool};

pub fn check(rendered: &[Rendered], table: &mut Table) {
    tool::parse(rendered, table);
    let folder = npm::package("javascript", rendered);
    syntax(rendered, &folder, table);
    if !full() {
        return;
    }
    let options = json!({
        "compilerOptions": {
            "target": "es2023", "lib": ["es2023", "dom", "dom.iterable"], "types": ["node"],
            "module": "nodenext", "jsx": "react-jsx", "allowJs": true, "checkJs": true, "maxNodeModuleJsDepth": 0,
            // Parameters without JSDoc are of any type, what is declared holds.
            "strict": true, "noImplicitAny": false, "useUnknownInCatchVariables": false, "noUnusedLocals": true,
            "skipLibCheck": true, "noEmit": true,
        },
        "include": ["**/*.js", "**/*.jsx"],
    });
    npm::compile("tsc --checkJs with the real packages", &folder, options, rendered, table);
    npm::run(&folder, rendered, table);
}

fn syntax(rendered: &[Rendered], folder: &std::path::Path, table: &mut Table) {
    const TOOL: &str = "node --check";
    if !full() && !tool::on_path("node") {
        return;
    }
    tool::needed("node");
    for one in rendered {
        if one.file_name().ends_with(".jsx") {
            table.not_checked(TOOL, &one.template, "node does not read JSX");
            continue;
        }
        table.checked(TOOL, one);
        let (good, said) = tool::output(tool::command("node", folder).arg("--check").arg(npm::path(one)));
        if !good {
            table.complain(TOOL, one, &said);
        }
    }
}
