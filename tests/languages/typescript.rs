//! TypeScript: by default the grammar; in the full run one strict `tsc` over every rendering with the real packages, and
//! the generated tests.

use serde_json::json;

use crate::table::Table;
use crate::{Rendered, full, npm, tool};

pub fn check(rendered: &[Rendered], table: &mut Table) {
    tool::parse(rendered, table);
    if !full() {
        return;
    }
    let folder = npm::package("typescript", rendered);
    let options = json!({
        "compilerOptions": {
            "target": "es2023", "lib": ["es2023", "dom", "dom.iterable"], "types": ["node"],
            "module": "nodenext", "jsx": "react-jsx", "experimentalDecorators": true, "verbatimModuleSyntax": true, "isolatedModules": true,
            "strict": true, "noUncheckedIndexedAccess": true, "exactOptionalPropertyTypes": true,
            "noImplicitOverride": true, "noImplicitReturns": true, "noFallthroughCasesInSwitch": true,
            "noUnusedLocals": true, "noUnusedParameters": true,
            "skipLibCheck": true, "rootDir": ".", "outDir": ".",
        },
        "include": ["**/*.ts", "**/*.tsx"],
        "exclude": ["node_modules"],
    });
    npm::compile("tsc, strict, with the real packages", &folder, options, rendered, table);
    npm::run(&folder, rendered, table);
}
