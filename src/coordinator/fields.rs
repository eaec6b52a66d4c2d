//! The fields that a task lists: "customer_id integer, total decimal (optional) and unique email".

use serde::{Deserialize, Serialize};

use super::classify::types_of;
use super::lexicon;
use super::noun::Noun;
use super::words::{Form, Word};

/// A column, member or property that the task lists.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Field {
    pub name: Noun,
    pub r#type: FieldType,
    /// Whether the task says the type; else it is what a field of this name is, or text.
    pub typed: bool,
    /// True unless the task says optional or nullable.
    pub required: bool,
    /// False unless the task says unique.
    pub unique: bool,
    /// What stood in brackets after the type: "255", "10, 2".
    pub size: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FieldType {
    Text,
    Integer,
    Decimal,
    Boolean,
    Timestamp,
    Uuid,
    Json,
    /// Only for a template that says it knows dates.
    Date,
    /// Only for a template that says it knows floats.
    Float,
}

/// What a template can honour of a field beyond its name and the seven types that all know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Detail {
    Optional,
    Unique,
    Size,
    Date,
    Float,
    /// It makes one thing of all fields, such as an index over several columns, and so needs at least two.
    Together,
}

impl Detail {
    pub(super) const ALL: [Self; 5] = [Self::Optional, Self::Unique, Self::Size, Self::Date, Self::Float];
}

impl Field {
    /// Whether a template that honours these details gives all that this field asks for.
    pub(super) fn is_within(&self, details: &[Detail]) -> bool {
        let asked = [
            (!self.required, Detail::Optional),
            (self.unique, Detail::Unique),
            (self.size.is_some(), Detail::Size),
            (self.r#type == FieldType::Date, Detail::Date),
            (self.r#type == FieldType::Float, Detail::Float),
        ];
        asked.iter().all(|(asks, detail)| !asks || details.contains(detail))
    }
}

impl FieldType {
    /// By any name that people use for it, in lower case.
    pub(super) fn named(lower: &str) -> Option<Self> {
        Some(match lower {
            "text" | "string" | "str" | "varchar" | "char" | "citext" | "texto" | "cadena" | "zeichenkette" => {
                Self::Text
            }
            "integer" | "int" | "bigint" | "smallint" | "int2" | "int4" | "int8" | "int32" | "int64" | "i32"
            | "i64" | "u32" | "long" | "number" | "ganzzahl" | "zahl" | "entero" => Self::Integer,
            "decimal" | "numeric" | "money" | "dezimal" => Self::Decimal,
            "float" | "double" | "real" | "float64" | "f64" => Self::Float,
            "boolean" | "bool" | "flag" => Self::Boolean,
            "timestamp" | "timestamptz" | "datetime" | "zeitstempel" => Self::Timestamp,
            "date" | "datum" | "fecha" => Self::Date,
            "uuid" | "guid" => Self::Uuid,
            "json" | "jsonb" => Self::Json,
            _ => return None,
        })
    }

    /// What a field of this name is everywhere, for lists without types: "with name, email and price".
    fn usual(name: &str) -> Option<Self> {
        Some(match name {
            "name" | "title" | "email" | "description" | "note" | "notes" | "slug" | "code" | "phone" | "address"
            | "status" | "url" | "username" | "body" | "content" | "label" | "city" | "country" | "currency"
            | "street" | "mail" | "message" | "comment" | "department" | "location" | "role" | "color" | "avatar"
            | "zip" | "postcode" | "sku" | "isbn" | "brand" | "category" | "author" => Self::Text,
            "quantity" | "count" | "age" | "stock" | "year" | "score" | "rating" | "points" => Self::Integer,
            "price" | "total" | "amount" => Self::Decimal,
            "active" | "enabled" => Self::Boolean,
            "id" => Self::Uuid,
            _ => match name.rsplit_once('_')?.1 {
                "at" => Self::Timestamp,
                // As the keys of the templates are.
                "id" => Self::Uuid,
                "count" => Self::Integer,
                "name" | "email" | "url" | "code" | "title" | "address" | "status" | "description" => Self::Text,
                "price" | "amount" | "total" => Self::Decimal,
                _ => return None,
            },
        })
    }

    /// What a column is that is only named: its name says more of it than a word of English.
    fn of_column(name: &str) -> Option<Self> {
        Self::usual(name).or(name.contains('_').then_some(Self::Text))
    }
}

/// Says more of a field than its type. Left over, it turns what was asked for into something else.
pub(super) fn is_detail(lower: &str) -> bool {
    matches!(lower, "optional" | "nullable" | "null" | "unique" | "array" | "enum")
}

/// Names a type, or a list of one ("text[]").
pub(super) fn is_type(lower: &str) -> bool {
    lower.ends_with("[]") || FieldType::named(lower).is_some()
}

/// The first list of fields in a task and the words that it takes, its introduction included.
pub(super) fn find(words: &[Word], details: &[Detail], taken: &[bool]) -> Option<(Vec<Field>, std::ops::Range<usize>)> {
    let first_index = words.iter().position(|w| matches!(w.lower.as_str(), "index" | "indexes" | "indices"));
    (0..words.len()).find_map(|at| {
        // "an index on orders for customer_id", "indexes on orders (status, created_at)"
        // "lookups by email are slow, add an index"
        let early = words[at].lower == "by";
        let indexed = first_index.filter(|index| *index < at || early).and_then(|index| {
            let bracketed = words[at].before.ends_with('(');
            let untyped = match words[at].lower.as_str() {
                _ if bracketed => Untyped::IsText,
                "on" | "for" | "by" | "over" => Untyped::IfColumn,
                _ => return None,
            };
            let (fields, end) = List { words, details, untyped }.read(at + usize::from(!bracketed))?;
            // One index over two columns is another thing than two indexes.
            let several = words[index].lower != "index" && !bracketed;
            let fits = match details.contains(&Detail::Together) {
                true => fields.len() > 1 && !several,
                false => several || fields.len() == 1,
            };
            fits.then_some((fields, at..end))
        });
        if indexed.is_some() {
            return indexed;
        }
        // "reads DATABASE_URL and NATS_URL"
        let is_variable =
            |w: &Word| w.form == Form::Plain && w.text.contains('_') && !w.text.chars().any(char::is_lowercase);
        if is_variable(&words[at]) {
            let list = List { words, details, untyped: Untyped::IsText }.read(at);
            return list.map(|(fields, end)| (fields, at..end));
        }
        let listed =
            matches!(words[at].lower.as_str(), "fields" | "columns" | "attributes" | "properties" | "props" | "attrs");
        let begins = matches!(
            words[at].lower.as_str(),
            "with"
                | "w"
                | "having"
                | "have"
                | "containing"
                | "contains"
                | "of"
                | "has"
                | "showing"
                | "shows"
                | "displaying"
                | "displays"
                | "listing"
                | "storing"
                | "stores"
                | "holding"
                | "holds"
                | "carrying"
                | "carries"
        );
        let opened = words[at].before.contains(['(', ':', '-', '\n', ';', '.', '–', '—'])
            || (at > 0 && words[at - 1].form == Form::Path);
        let list = |from, untyped| List { words, details, untyped }.read(from).map(|(fields, end)| (fields, at..end));
        // "an Order struct, id uuid and total decimal": one alone may be anything.
        let several = |found: &(Vec<Field>, std::ops::Range<usize>)| found.0.len() > 1;
        if listed {
            list(at + 1, Untyped::IsText)
        } else if begins {
            let found = list(at + 1, if words[at].lower == "of" { Untyped::IsNoField } else { Untyped::IfUsual });
            wider(words, details, taken, at + 1, found).map(|(fields, span)| (fields, at..span.end))
        } else if opened {
            let found = list(at, Untyped::IsNoField);
            // "…. Response JSON" is no field.
            let weak = !words[at].before.contains(['(', ':', '-', '\n']);
            match found {
                found if weak => found.filter(|found| several(found) || is_plainly(found, words)),
                None => wider(words, details, taken, at, list(at, Untyped::IfUsual)).filter(several),
                found => found,
            }
        } else if words[at].before.contains(',') {
            // Behind another type it is not the first of its list.
            let first = at == 0 || !is_type(&words[at - 1].lower);
            list(at, Untyped::IsNoField).filter(|found| several(found) || (first && is_plainly(found, words)))
        } else {
            None
        }
    })
}

/// "…, isbn string unique", "…, given_at datetime": one alone that is written as nothing but a field is.
fn is_plainly((fields, span): &(Vec<Field>, std::ops::Range<usize>), words: &[Word]) -> bool {
    let marked = |w: &Word| is_detail(&w.lower) || w.lower == "required" || w.lower == "mandatory";
    let only = |field: &Field| {
        let sure =
            matches!(field.r#type, FieldType::Integer | FieldType::Decimal | FieldType::Boolean | FieldType::Uuid);
        field.typed && (sure || field.name.words().contains(' ') || words[span.clone()].iter().any(marked))
    };
    fields.first().is_some_and(only)
        && words[span.start].form == Form::Plain
        && words[span.clone()].iter().any(|w| is_type(&w.lower))
}

/// "name, department and start date": among fields that everybody knows, the others are texts, where the template knows
/// the words for nothing else.
fn wider(
    words: &[Word],
    details: &[Detail],
    taken: &[bool],
    from: usize,
    found: Option<(Vec<Field>, std::ops::Range<usize>)>,
) -> Option<(Vec<Field>, std::ops::Range<usize>)> {
    let (usual, span) = found?;
    let all = List { words, details, untyped: Untyped::IsText }.read(from);
    let free = |i: usize| {
        !taken[i] && types_of(&words[i]).is_empty() && !lexicon::is_foreign(&words[i].lower) && !words[i].limits()
            || words[i].is_filler()
    };
    match all {
        Some((fields, end)) if fields.len() > usual.len() && (span.end..end).all(free) => Some((fields, from..end)),
        _ => Some((usual, span)),
    }
}

/// The fields of a template's `defaults`: nothing but a list.
pub(super) fn parse(list: &str) -> Option<Vec<Field>> {
    let words = super::words::words(list);
    let (fields, end) = List { words: &words, details: &Detail::ALL, untyped: Untyped::IsText }.read(0)?;
    (end == words.len()).then_some(fields)
}

/// What a field without a type is.
#[derive(Clone, Copy, PartialEq)]
enum Untyped {
    IsText,
    /// A field where everybody knows its type.
    IfUsual,
    /// A field where it is written as one, too.
    IfColumn,
    IsNoField,
}

struct List<'a> {
    words: &'a [Word],
    details: &'a [Detail],
    untyped: Untyped,
}

/// A field can be called so much; more words are a sentence.
const NAME_WORDS: usize = 3;
const MOST: usize = 40;
/// Words that say nothing elsewhere, and are columns where a type follows.
const COLUMNS: [&str; 16] = [
    "code",
    "sample",
    "example",
    "set",
    "show",
    "new",
    "all",
    "language",
    "snippet",
    "template",
    "implementation",
    "standard",
    "one",
    "here",
    "like",
    "same",
];

#[derive(Default)]
struct Marks {
    optional: bool,
    required: bool,
    unique: bool,
}

impl List<'_> {
    /// Reads from `at` as many fields as there are, and where they end.
    fn read(&self, at: usize) -> Option<(Vec<Field>, usize)> {
        let mut fields: Vec<Field> = vec![];
        let mut end = at;
        let mut next = at;
        while let Some(word) = self.words.get(next).filter(|_| fields.len() < MOST) {
            if matches!(
                word.lower.as_str(),
                "and" | "und" | "y" | "a" | "an" | "the" | "fields" | "columns" | "are" | "named" | "called" | "plus"
            ) {
                next += 1;
                continue;
            }
            let separated = fields.is_empty() || word.after_break || self.words[next - 1].lower == "and";
            let Some((field, after)) = self.field(next, separated) else { break };
            fields.push(field);
            (next, end) = (after, after);
        }
        let distinct = (1..fields.len()).all(|i| fields[..i].iter().all(|f| f.name != fields[i].name));
        (!fields.is_empty() && distinct).then_some((fields, end))
    }

    fn field(&self, at: usize, separated: bool) -> Option<(Field, usize)> {
        let mut marks = Marks::default();
        let mut begin = at;
        while let Some(after) = self.mark(begin, &mut marks) {
            begin = after;
        }
        let word = self.words.get(begin)?;
        let is_name = |w: &Word| w.form == Form::Plain && !w.is_boundary();
        // "code text": a filler that is a noun too, with a type right behind it.
        let noun = || COLUMNS.contains(&word.lower.as_str()) && self.r#type(begin + 1).is_some();
        if !(is_name(word) || noun()) || (begin > at && word.after_break) {
            return None;
        }
        let typed = (1..=NAME_WORDS).map_while(|length| {
            let inside = &self.words[begin + 1..(begin + length).min(self.words.len())];
            inside.iter().all(|w| is_name(w) && !w.after_break).then_some(length)
        });
        let typed = typed.into_iter().find_map(|length| self.r#type(begin + length).map(|found| (length, found)));
        let is_typed = typed.is_some();
        let (length, (r#type, size, mut end)) = match typed {
            Some(found) => found,
            None => (1, (self.untyped_at(begin, separated)?, None, begin + 1)),
        };
        // "email (string, unique)": in brackets a comma does not end the field.
        let bracketed = (begin + length..end).any(|i| self.words[i].before.contains('('));
        while let Some(after) = self.mark(end, &mut marks) {
            let gap = &self.words[end].before;
            let alone = self.words.get(after).is_none_or(|w| w.after_break || w.lower == "and");
            let closed = bracketed && self.words[begin + length + 1..=end].iter().any(|w| w.before.contains(')'));
            if gap.contains([',', ';', '\n']) && !alone || (closed && gap.contains(',')) {
                break;
            }
            end = after;
        }
        let text: Vec<&str> = self.words[begin..begin + length].iter().map(|w| w.text.as_str()).collect();
        let name = Noun::of_field(&text.join(" "))?;
        let required = !marks.optional || marks.required;
        Some((Field { name, r#type, typed: is_typed, required, unique: marks.unique, size }, end))
    }

    fn honours(&self, detail: Detail) -> bool {
        self.details.contains(&detail)
    }

    /// The type at `at`, its size, and where they end.
    fn r#type(&self, at: usize) -> Option<(FieldType, Option<String>, usize)> {
        let joined =
            |at: usize| self.words.get(at).filter(|w| !w.before.contains([',', ';', '.', ')', '\n', '?', '!']));
        let at = at + usize::from(joined(at).is_some_and(|w| matches!(w.lower.as_str(), "as" | "is")));
        let word = joined(at).filter(|w| w.form == Form::Plain)?;
        let r#type = FieldType::named(&word.lower)?;
        let known = match r#type {
            FieldType::Date => self.honours(Detail::Date),
            FieldType::Float => self.honours(Detail::Float),
            _ => true,
        };
        let mut end = at + 1;
        end += usize::from(word.lower == "double" && self.words.get(end).is_some_and(|w| w.lower == "precision"));
        let numbers = self.words[end..].iter().enumerate().take(2).take_while(|(i, w)| {
            w.form == Form::Number && w.text.len() <= 6 && w.before == if *i == 0 { "(" } else { "," }
        });
        let size: Vec<&str> = numbers.map(|(_, w)| w.text.as_str()).collect();
        if known && !size.is_empty() && self.honours(Detail::Size) {
            return Some((r#type, Some(size.join(", ")), end + size.len()));
        }
        known.then_some((r#type, None, end))
    }

    /// What the field at `at` is, if no type follows it. It must stand by itself.
    fn untyped_at(&self, at: usize, separated: bool) -> Option<FieldType> {
        let ends = self.words.get(at + 1).is_none_or(|w| {
            (w.after_break && !w.before.contains(':'))
                || w.is_filler()
                || self.mark(at + 1, &mut Marks::default()).is_some()
        });
        if !separated || !ends {
            return None;
        }
        match self.untyped {
            Untyped::IsText => Some(FieldType::usual(&self.words[at].lower).unwrap_or(FieldType::Text)),
            Untyped::IfUsual => FieldType::usual(&self.words[at].lower),
            Untyped::IfColumn => FieldType::of_column(&self.words[at].lower),
            Untyped::IsNoField => None,
        }
    }

    /// Reads one mark, if the template honours it, and says where it ends.
    fn mark(&self, at: usize, marks: &mut Marks) -> Option<usize> {
        let next = |word: &str| self.words.get(at + 1).is_some_and(|w| w.lower == word && !w.after_break);
        match self.words.get(at)?.lower.as_str() {
            "required" | "mandatory" => marks.required = true,
            "not" | "non" if next("null") || next("nullable") => {
                marks.required = true;
                return Some(at + 2);
            }
            "optional" | "nullable" | "null" if self.honours(Detail::Optional) => marks.optional = true,
            "unique" if self.honours(Detail::Unique) => marks.unique = true,
            _ => return None,
        }
        Some(at + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::super::words::words;
    use super::*;

    fn read(task: &str) -> Vec<String> {
        let shown = |f: Field| {
            let size = f.size.map_or(String::new(), |s| format!("({s})"));
            let marks = [(!f.required, " optional"), (f.unique, " unique")];
            let marks: String = marks.iter().filter(|(on, _)| *on).map(|(_, m)| *m).collect();
            format!("{} {:?}{size}{marks}", f.name.words().replace(' ', "_"), f.r#type).to_lowercase()
        };
        find(&words(task), &Detail::ALL, &vec![false; words(task).len()])
            .map_or(vec![], |(fields, _)| fields.into_iter().map(shown).collect())
    }

    #[test]
    fn lists_are_read_however_they_are_written() {
        for (task, expected) in [
            (
                "orders with customer_id integer, total decimal and note text",
                vec!["customer_id integer", "total decimal", "note text"],
            ),
            (
                "customers with customer_id (integer), total: decimal, id:uuid",
                vec!["customer_id integer", "total decimal", "id uuid"],
            ),
            ("users: email (string, unique), bio (text, optional)", vec!["email text unique", "bio text optional"]),
            ("users with unique email and optional note text", vec!["email text unique", "note text optional"]),
            (
                "products table: sku varchar(64) unique not null, price numeric(10,2), stock int",
                vec!["sku text(64) unique", "price decimal(10, 2)", "stock integer"],
            ),
            (
                "people (first name text, birthday date, weight double precision)",
                vec!["first_name text", "birthday date", "weight float"],
            ),
            ("guests:int, note:text (nullable)", vec![]),
            ("rooms with guests:int, note:text (nullable)", vec!["guests integer", "note text optional"]),
            ("invoices with number text and total decimal", vec!["number text", "total decimal"]),
            (
                "orders with fields customer, note and total decimal",
                vec!["customer text", "note text", "total decimal"],
            ),
            ("users with name, email and created_at", vec!["name text", "email text", "created_at timestamp"]),
            ("coupons with code text and all boolean", vec!["code text", "all boolean"]),
            ("users with name, department and start date", vec!["name text", "department text", "start date"]),
            ("reads DATABASE_URL and NATS_URL", vec!["database_url text", "nats_url text"]),
            ("an endpoint with name validation and tests", vec![]),
            ("products with tags text[]", vec![]),
            ("orders with retries", vec![]),
        ] {
            assert_eq!(read(task), expected, "{task}");
        }
    }

    #[test]
    fn what_a_template_does_not_honour_stays_unread() {
        let task = words("users with name text, email text unique, born date");
        let (fields, taken) = find(&task, &[], &vec![false; task.len()]).unwrap();
        assert_eq!((fields.len(), taken), (2, 1..6), "unique and the date are left over, so that the rules decline");
        assert!(parse("name text unique, born date").is_some() && parse("name text, 7").is_none());
    }
}
