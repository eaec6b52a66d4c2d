//! The slots that every template is rendered with: what people write, and what breaks code.

use std::collections::BTreeMap;

/// One way to fill the slots. What a set leaves out, the template's defaults fill.
pub struct Set {
    /// `[a-z0-9_]+`.
    pub name: &'static str,
    /// Whether the default run takes it.
    pub in_sample: bool,
    pub task: &'static str,
    /// TOML, as a template's `defaults`.
    slots: &'static str,
}

impl Set {
    pub fn table(&self) -> Result<BTreeMap<String, toml::Value>, toml::de::Error> {
        toml::from_str(self.slots)
    }
}

pub const ALL: [Set; 20] = [
    Set {
        name: "ordinary",
        in_sample: true,
        task: "user events",
        // Each of the types.
        slots: r#"
            name = "user events"
            subject = "user.events.created"
            fields = ["email text", "age integer", "balance decimal", "active boolean", "joined_at timestamp",
                "account_id uuid", "settings json"]
        "#,
    },
    Set { name: "defaults", in_sample: false, task: "", slots: "" },
    Set {
        name: "options",
        in_sample: false,
        task: "orders with customer_id integer, total decimal and note text",
        slots: r#"
            name = "orders"
            subject = "orders.*.created"
            queue = "billing.v2"
            port = 65535
            path = "/api/v1.0/Order-Items"
            fields = ["customer_id integer", "total decimal", "note text"]
        "#,
    },
    // The next four are only for templates that honour all that their fields ask for.
    Set {
        name: "details",
        in_sample: true,
        task: "customers with optional note",
        slots: r#"
            name = "customers"
            fields = ["email text", "note text optional", "price decimal", "discount decimal optional",
                "visits integer optional", "active boolean optional", "seen_at timestamp optional", "account uuid optional",
                "settings json optional", "born date", "left date optional", "ratio float", "score float optional"]
        "#,
    },
    Set {
        name: "unique",
        in_sample: false,
        task: "members with unique email",
        slots: r#"
            name = "members"
            fields = ["email text unique", "number integer unique", "note text"]
        "#,
    },
    Set {
        name: "sizes",
        in_sample: true,
        task: "guests with email varchar(255) unique",
        slots: r#"
            name = "guests"
            fields = ["email varchar(255) unique", "sku varchar(8) optional", "price numeric(10,2)"]
        "#,
    },
    Set {
        name: "optional",
        in_sample: false,
        task: "clients with optional note",
        slots: r#"
            name = "clients"
            fields = ["email text", "note text optional", "visits integer optional"]
        "#,
    },
    Set {
        name: "irregular",
        in_sample: false,
        task: "analyses",
        slots: r#"
            name = "analyses"
            subject = "analyses.>"
            fields = ["criteria text", "weight decimal"]
        "#,
    },
    Set {
        name: "uncountable",
        in_sample: false,
        task: "equipment",
        // All that most tables have anyway: nothing is left to add.
        slots: r#"
            name = "equipment"
            fields = ["id uuid", "created_at timestamp"]
        "#,
    },
    Set {
        name: "acronym",
        in_sample: false,
        task: "HTTP APIs",
        slots: r#"
            name = "HTTP APIs"
            path = "/a"
            fields = ["URL text", "HTTPStatus integer", "ipV4 text"]
        "#,
    },
    Set {
        name: "digits",
        in_sample: false,
        task: "3d models",
        slots: r#"
            name = "3d models"
            fields = ["2fa boolean", "x1 decimal"]
        "#,
    },
    Set {
        name: "one_letter",
        in_sample: false,
        task: "x",
        slots: r#"
            name = "x"
            port = 1
            fields = ["x integer"]
        "#,
    },
    Set {
        name: "named_class",
        in_sample: false,
        task: "class \"; DROP TABLE users; -- */ ''' `` #{1} ${2} {{ 3 }} \\ \n end",
        slots: r#"
            name = "class"
            subject = "class"
            fields = ["class text", "def integer", "end timestamp", "do boolean", "nil json"]
        "#,
    },
    Set {
        name: "named_type",
        in_sample: true,
        task: "type",
        slots: r#"
            name = "type"
            fields = ["type text", "order integer", "select text", "id integer", "created_at text", "class text",
                "end decimal", "default boolean"]
        "#,
    },
    Set {
        name: "named_select",
        in_sample: false,
        task: "select",
        slots: r#"
            name = "select"
            fields = ["join text", "group integer", "limit integer", "offset integer", "table text", "values json"]
        "#,
    },
    Set {
        name: "named_order",
        in_sample: false,
        task: "order",
        slots: r#"
            name = "order"
            fields = ["self text", "super text", "crate text", "mod text", "async boolean", "await boolean"]
        "#,
    },
    Set {
        name: "named_user",
        in_sample: false,
        task: "user",
        // What the code around a field is likely to call its own.
        slots: r#"
            name = "user"
            fields = ["name text", "version integer", "updated_at timestamp", "deleted_at timestamp", "body json",
                "row text", "error text", "value decimal", "data json"]
        "#,
    },
    Set {
        name: "named_self",
        in_sample: false,
        task: "self",
        slots: r#"
            name = "self"
            fields = ["range integer", "func text", "map json", "interface text", "package text", "import text",
                "constructor text", "prototype text", "arguments text"]
        "#,
    },
    Set {
        name: "named_error",
        in_sample: false,
        task: "errors",
        // Types of the standard libraries and of the templates themselves.
        slots: r#"
            name = "errors"
            fields = ["status integer", "result text", "message text", "string text", "len integer"]
        "#,
    },
    Set {
        name: "long",
        in_sample: false,
        task: "internationalization administration notifications, again and again, until no line is wide enough for them",
        slots: r#"
            name = "internationalization administration notifications"
            subject = "internationalization.administration.notifications.region-eu-central-1.created"
            queue = "internationalization-administration-notifications-workers-eu-central-1"
            path = "/api/v1/tenants/internationalization/administration/notifications"
            fields = ["internationalization_administration_notification_identifier integer",
                "internationalization_administration_notification_description text",
                "aa text", "bb text", "cc text", "dd integer", "ee decimal", "ff decimal", "gg uuid", "hh uuid", "ii timestamp",
                "jj json", "kk json", "ll boolean", "mm text", "nn text"]
        "#,
    },
];
