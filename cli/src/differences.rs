//! Differences between key documents, as people read them.

use std::io;

use objcache::signature::Difference;

use crate::output::Text;
use crate::output::table::pairs;

/// What fits into one line is said in one.
const ONE_LINE: usize = 100;

/// `miss: optimization: 2 → 3; flags: -g gone`, or, when that is long, a line for each.
pub(crate) fn write(word: &str, differences: &[Difference], text: &mut Text<'_>) -> io::Result<()> {
    let told = told(differences);
    let parts: Vec<_> = told.iter().map(|(name, change)| format!("{name}: {change}")).collect();
    let line = format!("{word}: {}", parts.join("; "));
    if line.chars().count() <= ONE_LINE || told.len() == 1 {
        return text.line(line);
    }
    text.line(format!("{word}: {} things differ", told.len()))?;
    let indented: Vec<_> = told.into_iter().map(|(name, change)| (format!("  {name}"), change)).collect();
    text.laid_out(&pairs(indented.iter().map(|(name, change)| (name.as_str(), change.clone())), text.width))
}

/// Names and changes. Left out is what says nothing more: a text's length beside its digest, the parts of a compiler that
/// is another one altogether.
fn told(differences: &[Difference]) -> Vec<(String, String)> {
    let has = |name: &str| differences.iter().any(|it| it.ingredient == name);
    let other_compiler = has("compiler_name") || has("compiler_version");
    let (mut told, mut parts) = (Vec::new(), 0);
    for difference in differences {
        match difference.ingredient.as_str() {
            "ir_length" if has("ir_digest") => {}
            part if other_compiler && part.starts_with(COMPONENTS) => parts += 1,
            other => told.push((name(other), change(difference))),
        }
    }
    if parts > 0 {
        told.push(("compiler parts".to_owned(), format!("{parts} are others (--json lists them)")));
    }
    told
}

const COMPONENTS: &str = "compiler_components.";

fn name(ingredient: &str) -> String {
    match ingredient {
        "ir_digest" => "source text".to_owned(),
        other => match other.strip_prefix(COMPONENTS) {
            Some(component) => format!("compiler part {component}"),
            None => other.replace('_', " "),
        },
    }
}

fn change(difference: &Difference) -> String {
    let Difference { ingredient, before, after } = difference;
    let (before, after) = (before.as_deref(), after.as_deref());
    // Of long lists only what changed is worth reading.
    let is_list = matches!(ingredient.as_str(), "cpu_features" | "tuning_features" | "flags" | "linked");
    match (before, after) {
        (Some(before), Some(after)) if is_list => words_changed(before, after),
        _ => format!("{} → {}", shown(before), shown(after)),
    }
}

fn shown(value: Option<&str>) -> String {
    match value {
        None => "absent".to_owned(),
        Some("") => "none".to_owned(),
        Some(text) => text.split(' ').map(abbreviated).collect::<Vec<_>>().join(" "),
    }
}

/// The first digits of a digest are enough to see that it is another.
fn abbreviated(word: &str) -> String {
    const DIGITS: usize = 12;
    let (kind, digits) = word.split_at(word.find(':').map_or(0, |colon| colon + 1));
    let is_digest = digits.len() > 2 * DIGITS && digits.chars().all(|c| c.is_ascii_hexdigit());
    if is_digest { format!("{kind}{}…", &digits[..DIGITS]) } else { word.to_owned() }
}

/// Of so many words of a list the first are said.
const WORDS: usize = 8;

fn words_changed(before: &str, after: &str) -> String {
    let words = |text| -> Vec<&str> { str::split(text, ' ').filter(|word| !word.is_empty()).collect() };
    let (before, after) = (words(before), words(after));
    let without = |words: &[&str], others: &[&str]| -> Vec<String> {
        words.iter().filter(|word| !others.contains(word)).map(|word| abbreviated(word)).collect()
    };
    let (gone, new) = (without(&before, &after), without(&after, &before));
    match (gone.is_empty(), new.is_empty()) {
        (false, false) => format!("{} → {}", first_of(&gone), first_of(&new)),
        (false, true) => format!("{} gone", first_of(&gone)),
        (true, false) => format!("{} new", first_of(&new)),
        // The same words, in another order or another number.
        (true, true) => format!("{} → {}", before.join(" "), after.join(" ")),
    }
}

fn first_of(words: &[String]) -> String {
    match words.get(..WORDS) {
        Some(first) if words.len() > WORDS => format!("{} … ({} in all)", first.join(" "), words.len()),
        _ => words.join(" "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn difference(ingredient: &str, before: Option<&str>, after: Option<&str>) -> Difference {
        Difference {
            ingredient: ingredient.to_owned(),
            before: before.map(str::to_owned),
            after: after.map(str::to_owned),
        }
    }

    fn said(differences: &[Difference], width: Option<usize>) -> String {
        let mut out = Vec::new();
        write("miss", differences, &mut Text { out: &mut out, styled: false, width }).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_few_are_said_in_one_line() {
        let few = [
            difference("optimization", Some("2"), Some("3")),
            difference("compiler_version", Some("22.1.7"), Some("22.1.8")),
        ];
        assert_eq!(said(&few, None), "miss: optimization: 2 → 3; compiler version: 22.1.7 → 22.1.8\n");
        let long = difference("environment.CFLAGS", None, Some(&"x".repeat(120)));
        let lines = said(&[few[0].clone(), long], None);
        assert!(lines.starts_with("miss: 2 things differ\n  optimization        2 → 3\n"), "{lines}");
    }

    #[test]
    fn of_lists_only_what_changed_is_said() {
        let change = |before, after| change(&difference("flags", Some(before), Some(after)));
        assert_eq!(change("-a -b -c", "-a -c"), "-b gone");
        assert_eq!(change("", "-g"), "-g new");
        assert_eq!(change("-O2 -g", "-O3 -g"), "-O2 → -O3");
        assert_eq!(change("-a -b", "-b -a"), "-a -b → -b -a");
    }

    #[test]
    fn another_compiler_has_other_parts() {
        let part = |name: &str| difference(&format!("{COMPONENTS}{name}"), None, Some("build-id:1"));
        let version = difference("compiler_version", Some("1"), Some("2"));
        let said = said(&[version, part("cc1"), part("as")], None);
        assert_eq!(said, "miss: compiler version: 1 → 2; compiler parts: 2 are others (--json lists them)\n");
        assert_eq!(told(&[part("cc1")])[0].0, "compiler part cc1");
    }

    #[test]
    fn long_lists_are_cut() {
        let many: Vec<_> = (0..20).map(|number| format!("+f{number}")).collect();
        assert_eq!(words_changed("", &many.join(" ")), "+f0 +f1 +f2 +f3 +f4 +f5 +f6 +f7 … (20 in all) new");
    }

    #[test]
    fn digests_are_short_and_lengths_left_out() {
        let digest = difference("ir_digest", Some(&"ab".repeat(32)), Some(&"cd".repeat(32)));
        let length = difference("ir_length", Some("1"), Some("2"));
        assert_eq!(said(&[length, digest], None), "miss: source text: abababababab… → cdcdcdcdcdcd…\n");
        assert_eq!(abbreviated(&format!("build-id:{}", "ab".repeat(20))), "build-id:abababababab…");
        assert_eq!(shown(None), "absent");
        assert_eq!(shown(Some("")), "none");
    }
}
