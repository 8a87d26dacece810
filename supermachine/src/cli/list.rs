//! Lists, in the ways that container tools print theirs.

use super::output::{plain, print, print_json};
use super::values;
use crate::Error;
use serde_json::{Map, Value};
use std::fmt::Write;

/// What is listed: fields by name.
pub type Row = Map<String, Value>;

/// How a list is printed, and what of it.
#[derive(clap::Args)]
pub struct ListOptions {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Print each by a template, as '{{.Id}} {{.Name}}'; '{{json .}}' for all
    /// fields; 'table …' for a heading
    #[arg(long, value_name = "TEMPLATE", conflicts_with = "json")]
    format: Option<String>,
    /// Only those with this value in a field; `label=NAME` and `label=NAME=VALUE`
    /// too; of a name a part is enough; may be repeated
    #[arg(short = 'f', long, value_name = "FIELD=VALUE", value_parser = values::text_pair)]
    filter: Vec<(String, String)>,
    /// Print nothing but what identifies each
    #[arg(short, long, conflicts_with_all = ["json", "format"])]
    quiet: bool,
}

/// A column of the table.
pub struct Column {
    pub heading: &'static str,
    pub field: &'static str,
    /// Numbers stand at the right.
    pub right: bool,
}

/// A column, in a line.
pub const fn column(heading: &'static str, field: &'static str, right: bool) -> Column {
    Column {
        heading,
        field,
        right,
    }
}

/// What there is to list.
pub struct List<'a> {
    pub columns: &'a [Column],
    /// Identifies a row.
    pub key: &'a str,
    /// All fields of a row, for who misspells one.
    pub fields: &'a [&'a str],
}

impl List<'_> {
    /// Prints the rows that are wanted.
    pub fn print(&self, rows: Vec<Row>, options: &ListOptions) -> Result<(), Error> {
        let mut wanted = Vec::new();
        for row in rows {
            if self.is_wanted(&row, &options.filter)? {
                wanted.push(row);
            }
        }
        if options.json {
            return print_json(&wanted, false);
        }
        if options.quiet {
            let mut text = String::new();
            for row in &wanted {
                // Writing to a string cannot fail.
                let _ = writeln!(text, "{}", shown(row.get(self.key)));
            }
            return print(&text);
        }
        match &options.format {
            Some(template) => print(&self.by_template(&wanted, template)?),
            None => print(&self.table(&wanted)),
        }
    }

    fn is_wanted(&self, row: &Row, filters: &[(String, String)]) -> Result<bool, Error> {
        for (field, value) in filters {
            if field == "label" {
                let (name, value) = match value.split_once('=') {
                    Some((name, value)) => (name, Some(value)),
                    None => (value.as_str(), None),
                };
                let label = row.get("labels").and_then(|labels| labels.get(name));
                if label.is_none_or(|label| value.is_some_and(|value| label != value)) {
                    return Ok(false);
                }
                continue;
            }
            let has = text(row.get(self.field(field)?));
            let fits = match field.as_str() {
                "name" => has.contains(value.as_str()),
                "id" => has.starts_with(value.as_str()),
                _ => has == *value,
            };
            if !fits {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A field as it is spelt here or by docker (`MemoryMib`, `ID`, `Names`).
    fn field(&self, word: &str) -> Result<&str, Error> {
        let normal = |word: &str| word.replace('_', "").to_ascii_lowercase();
        let wanted = match normal(word) {
            word if word == "names" => "name".to_owned(),
            word => word,
        };
        let found = self.fields.iter().find(|field| normal(field) == wanted);
        found.copied().ok_or_else(|| Error::NoSuchField {
            field: word.to_owned(),
            fields: self.fields.join(", "),
        })
    }

    fn table(&self, rows: &[Row]) -> String {
        let mut lines = vec![Vec::new()];
        lines[0].extend(self.columns.iter().map(|column| column.heading.to_owned()));
        for row in rows {
            let cells = self
                .columns
                .iter()
                .map(|column| shown(row.get(column.field)));
            lines.push(cells.collect());
        }
        aligned(&lines, |place| self.columns[place].right)
    }

    fn by_template(&self, rows: &[Row], template: &str) -> Result<String, Error> {
        let (has_heading, template) = match template.strip_prefix("table ") {
            Some(rest) => (true, rest),
            None => (false, template),
        };
        let parts = self.parse(template)?;
        let line = |fill: &dyn Fn(&Part<'_>) -> String| parts.iter().map(fill).collect::<String>();
        let mut lines = Vec::new();
        if has_heading {
            lines.push(line(&|part| match part {
                Part::Text(text) => text.clone(),
                Part::Field(field) => field.replace('_', " ").to_uppercase(),
                Part::Json => "JSON".into(),
            }));
        }
        for row in rows {
            lines.push(line(&|part| match part {
                Part::Text(text) => text.clone(),
                Part::Field(field) => shown(row.get(*field)),
                Part::Json => Value::Object(row.clone()).to_string(),
            }));
        }
        if !has_heading {
            return Ok(lines.iter().map(|line| format!("{line}\n")).collect());
        }
        let cells = |line: &String| line.split('\t').map(str::to_owned).collect();
        let lines: Vec<Vec<String>> = lines.iter().map(cells).collect();
        Ok(aligned(&lines, |_| false))
    }

    fn parse<'a>(&'a self, template: &str) -> Result<Vec<Part<'a>>, Error> {
        let unescaped = |text: &str| text.replace("\\t", "\t").replace("\\n", "\n");
        let mut parts = Vec::new();
        let mut rest = template;
        while let Some((text, action)) = rest.split_once("{{") {
            parts.push(Part::Text(unescaped(text)));
            let (action, after) = action.split_once("}}").ok_or(Error::Unsuitable {
                what: "a template",
                needs: "a }} behind each {{",
            })?;
            parts.push(match action.trim() {
                "json ." => Part::Json,
                action => Part::Field(self.field(action.strip_prefix('.').unwrap_or(action))?),
            });
            rest = after;
        }
        parts.push(Part::Text(unescaped(rest)));
        Ok(parts)
    }
}

enum Part<'a> {
    Text(String),
    Field(&'a str),
    Json,
}

/// A value as text.
fn text(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(words)) => {
            let words: Vec<String> = words.iter().map(|word| text(Some(word))).collect();
            words.join(" ")
        }
        Some(Value::Object(pairs)) => {
            let pairs: Vec<String> = pairs
                .iter()
                .map(|(name, value)| format!("{name}={}", text(Some(value))))
                .collect();
            pairs.join(",")
        }
        Some(other) => other.to_string(),
    }
}

/// A value as a terminal may have it.
fn shown(value: Option<&Value>) -> String {
    match text(value) {
        text if text.is_empty() => "-".to_owned(),
        text => plain(&text),
    }
}

/// Cells in columns as wide as their widest.
fn aligned(lines: &[Vec<String>], is_right: impl Fn(usize) -> bool) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |place: usize| {
        let cells = lines.iter().filter_map(|line| line.get(place));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for line in lines {
        let mut row = String::new();
        for (place, cell) in line.iter().enumerate() {
            let width = widths[place];
            let gap = if place == 0 { "" } else { "  " };
            // Writing to a string cannot fail.
            let _ = match is_right(place) {
                true => write!(row, "{gap}{cell:>width$}"),
                false => write!(row, "{gap}{cell:<width$}"),
            };
        }
        text.push_str(row.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: List<'static> = List {
        columns: &[
            Column {
                heading: "ID",
                field: "id",
                right: false,
            },
            Column {
                heading: "MIB",
                field: "memory_mib",
                right: true,
            },
        ],
        key: "id",
        fields: &["id", "name", "memory_mib", "labels"],
    };

    fn rows() -> Vec<Row> {
        let rows = serde_json::json!([
            {"id": "a1", "name": "web-1", "memory_mib": 1024, "labels": {"tier": "x"}},
            {"id": "b22", "name": "\u{1b}[2J", "memory_mib": 64, "labels": {}},
        ]);
        serde_json::from_value(rows).unwrap()
    }

    fn chosen(filters: &[(&str, &str)]) -> Vec<String> {
        let own = |(field, value): &(&str, &str)| ((*field).to_owned(), (*value).to_owned());
        let filters: Vec<_> = filters.iter().map(own).collect();
        let wanted = |row: &Row| LIST.is_wanted(row, &filters).unwrap();
        rows()
            .iter()
            .filter(|row| wanted(row))
            .map(|row| text(row.get("id")))
            .collect()
    }

    #[test]
    fn columns_are_as_wide_as_what_is_in_them() {
        assert_eq!(LIST.table(&rows()), "ID    MIB\na1   1024\nb22    64\n");
    }

    #[test]
    fn templates_know_fields_as_docker_spells_them() {
        let by = |template: &str| LIST.by_template(&rows()[..1], template).unwrap();
        assert_eq!(by("{{.ID}} {{ .Names }}={{.MemoryMib}}"), "a1 web-1=1024\n");
        assert_eq!(
            by("table {{.ID}}\\t{{.Labels}}"),
            "ID  LABELS\na1  tier=x\n"
        );
        assert!(by("{{json .}}").contains("\"memory_mib\":1024"));
        let refused = LIST
            .by_template(&rows(), "{{.Ports}}")
            .unwrap_err()
            .to_string();
        assert!(
            refused.contains("Ports") && refused.contains("memory_mib"),
            "{refused}"
        );
        assert!(LIST.by_template(&rows(), "{{.ID").is_err());
        let foreign = LIST.by_template(&rows()[1..], "{{.Name}}").unwrap();
        assert!(!foreign.contains('\u{1b}'), "{foreign:?}");
    }

    #[test]
    fn filters_all_have_to_fit() {
        assert_eq!(chosen(&[]), ["a1", "b22"]);
        assert_eq!(chosen(&[("name", "web")]), ["a1"]);
        assert_eq!(chosen(&[("label", "tier")]), ["a1"]);
        assert_eq!(chosen(&[("label", "tier=x"), ("id", "a")]), ["a1"]);
        assert_eq!(chosen(&[("label", "tier=y")]), Vec::<String>::new());
        assert_eq!(chosen(&[("memory_mib", "64")]), ["b22"]);
        assert!(
            LIST.is_wanted(&rows()[0], &[("color".into(), "red".into())])
                .is_err()
        );
    }
}
