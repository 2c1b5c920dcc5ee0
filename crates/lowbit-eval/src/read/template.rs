//! Texts that are made of the columns of a row.

use super::Column;
use serde::Deserialize;

/// A text with fields: `{column}`, a name or a position, stands for the value of a column, `{{` and `}}` for braces.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Template(Vec<Segment>);

/// What a template is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Text(String),
    Field(Column),
}

impl TryFrom<String> for Template {
    type Error = String;

    fn try_from(template: String) -> Result<Self, String> {
        let (mut segments, mut text, mut rest) = (Vec::new(), String::new(), &template[..]);
        while let Some(at) = rest.find(['{', '}']) {
            let (before, braces) = rest.split_at(at);
            text.push_str(before);
            if braces.starts_with("{{") || braces.starts_with("}}") {
                text.push_str(&braces[..1]);
                rest = &braces[2..];
                continue;
            }
            let field = braces.strip_prefix('{').and_then(|field| field.split_once('}'));
            let Some((name, after)) = field.filter(|(name, _)| !name.is_empty() && !name.contains('{')) else {
                return Err(format!(
                    "template {template:?} has a brace that is no {{column}}: write {{{{ or }}}} for braces"
                ));
            };
            segments.push(Segment::Text(std::mem::take(&mut text)));
            segments.push(Segment::Field(name.parse().map_or_else(|_| Column::Name(name.into()), Column::Index)));
            rest = after;
        }
        text.push_str(rest);
        segments.push(Segment::Text(text));
        Ok(Template(segments))
    }
}

impl Template {
    /// Its fields, in order, as often as they occur.
    pub fn fields(&self) -> impl Iterator<Item = &Column> {
        self.0.iter().filter_map(|segment| match segment {
            Segment::Text(_) => None,
            Segment::Field(column) => Some(column),
        })
    }

    /// The text with `value` of each field.
    pub fn render<'a>(&'a self, mut value: impl FnMut(&Column) -> &'a str) -> String {
        let shown = |segment: &'a Segment| match segment {
            Segment::Text(text) => text,
            Segment::Field(column) => value(column),
        };
        self.0.iter().map(shown).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_become_values() {
        let template = Template::try_from("{title}: {1}\n{{{title}}} {{}}".to_string()).unwrap();
        let fields: Vec<String> = template.fields().map(Column::to_string).collect();
        assert_eq!(fields, ["`title`", "1", "`title`"]);
        let value = |column: &Column| if *column == Column::Index(1) { "{one}" } else { "T" };
        assert_eq!(template.render(value), "T: {one}\n{T} {}");
        assert_eq!(Template::try_from("naïve 🙂".to_string()).unwrap().render(|_| ""), "naïve 🙂");
        for wrong in ["{", "}", "a {} b", "{a", "a}", "{a{b}", "{{{"] {
            let refused = Template::try_from(wrong.to_string()).unwrap_err();
            assert!(refused.contains("brace"), "{wrong}: {refused}");
        }
    }
}
