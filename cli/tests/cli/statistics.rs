//! `stats` and `top`: whether the cache was worth it, how long look-ups take, and the same for machines.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::{Command, Stdio};

use crate::support::{Sandbox, tool};

/// Two entries: one with a hit, one with three.
fn used() -> Sandbox {
    let sandbox = Sandbox::with(&["arithmetic.clif", "saxpy.clif"]);
    for (file, times) in [("arithmetic.clif", 2), ("saxpy.clif", 4)] {
        for _ in 0..times {
            sandbox.objcache(&["compile", file, "-o", "out.o"]).fine();
        }
    }
    sandbox
}

#[test]
fn whether_it_was_worth_it_is_said_first() {
    let sandbox = used();
    let said = sandbox.objcache(&["stats"]).fine();
    let first = said.lines().next().unwrap();
    assert!(first.starts_with("worth it?") && first.contains(" of compilation saved, "), "{said}");
    let stats = sandbox.json(&["stats"]);
    let figure = |name: &str| stats[name].as_f64().unwrap();
    assert!(figure("lookup_us") > 0.0 && figure("put_us") > 0.0);
    let net = figure("saved_compile_time_us") - figure("lookup_us") - figure("put_us");
    assert!((figure("net_us") - net).abs() < 1.0, "{stats}");
    assert!(first.contains(if net > 0.0 { " won: " } else { " lost: " }), "{first}");
    assert!(Sandbox::new().objcache(&["stats"]).fine().contains("nothing yet: "));
}

#[test]
fn latencies_are_counted_by_outcome() {
    let sandbox = used();
    let stats = sandbox.json(&["stats"]);
    for (name, count) in [("hit_latency", 4), ("miss_latency", 2)] {
        let latency = &stats[name];
        assert_eq!(latency["count"], count, "{latency}");
        let buckets = latency["buckets"].as_array().unwrap();
        assert_eq!(buckets.iter().map(|bucket| bucket["count"].as_u64().unwrap()).sum::<u64>(), count);
        assert!(latency["median_us"].as_f64().unwrap() <= latency["p99_us"].as_f64().unwrap());
        assert!(latency["total_us"].as_f64().unwrap() > 0.0);
    }
    let said = sandbox.objcache(&["stats", "--latency"]).fine();
    assert!(said.contains("\nHits\n") && said.contains("\nMisses\n") && said.contains('█'), "{said}");
    assert!(said.contains("hits took"), "{said}");
}

/// The rules of OpenMetrics 1.0 that our kind of text can break.
fn check_openmetrics(text: &str) -> BTreeMap<String, f64> {
    assert!(text.ends_with("\n# EOF\n") && text.matches("# EOF").count() == 1, "{text}");
    let (mut kinds, mut samples) = (BTreeMap::new(), BTreeMap::new());
    let mut family = String::new();
    let mut done = BTreeSet::new();
    for line in text.lines().take_while(|line| *line != "# EOF") {
        if let Some(rest) = line.strip_prefix("# ") {
            let [keyword, name, value] = rest.splitn(3, ' ').collect::<Vec<_>>()[..] else {
                panic!("{line}")
            };
            match keyword {
                "TYPE" => {
                    assert!(done.insert(name.to_owned()), "families are not interleaved: {line}");
                    assert!(["gauge", "counter", "histogram"].contains(&value), "{line}");
                    family = name.to_owned();
                    kinds.insert(family.clone(), value.to_owned());
                }
                "UNIT" => assert!(name == family && name.ends_with(&format!("_{value}")), "{line}"),
                "HELP" => assert!(name == family && !value.contains(['"', '\\']), "{line}"),
                _ => panic!("{line}"),
            }
            continue;
        }
        let (sample, value) = line.rsplit_once(' ').unwrap();
        let name = sample.split('{').next().unwrap();
        let suffix = name.strip_prefix(&family).unwrap_or_else(|| panic!("{line} in {family}"));
        let expected: &[&str] = match kinds[&family].as_str() {
            "gauge" => &[""],
            "counter" => &["_total"],
            _ => &["_bucket", "_count", "_sum"],
        };
        assert!(expected.contains(&suffix), "{line}");
        let value: f64 = value.parse().unwrap();
        assert!(value >= 0.0 && samples.insert(sample.to_owned(), value).is_none(), "{line}");
    }
    for (family, _) in kinds.iter().filter(|(_, kind)| *kind == "histogram") {
        let bucket = format!("{family}_bucket{{le=\"");
        let bound = |sample: &str| {
            sample[bucket.len()..].trim_end_matches("\"}").replace("+Inf", "inf").parse::<f64>().unwrap()
        };
        let mut buckets: Vec<_> = samples
            .iter()
            .filter(|(name, _)| name.starts_with(&bucket))
            .map(|(name, count)| (bound(name), *count))
            .collect();
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert!(buckets.is_sorted_by_key(|(_, count)| *count), "cumulative: {buckets:?}");
        assert_eq!(buckets.last().unwrap(), &(f64::INFINITY, samples[&format!("{family}_count")]));
    }
    samples
}

#[test]
fn openmetrics_are_valid_and_tell_the_same() {
    let sandbox = used();
    // Damage leaves a reason in the statistics.
    let signature = sandbox.json(&["ls"])["entries"][0]["signature"].as_str().unwrap().to_owned();
    std::fs::write(sandbox.entry_file(&signature), "damaged").unwrap();
    assert_eq!(sandbox.objcache(&["get", &signature, "-o", "x.o"]).code, 1);
    let text = sandbox.objcache(&["stats", "--openmetrics"]).fine();
    let samples = check_openmetrics(&text);
    let stats = sandbox.json(&["stats"]);
    for (sample, field) in [
        ("objcache_entries", "entries"),
        ("objcache_hits_total", "hits"),
        ("objcache_misses_total", "misses"),
        ("objcache_put_bytes_total", "put_bytes"),
        ("objcache_max_size_bytes", "max_size"),
    ] {
        assert_eq!(samples[sample], stats[field].as_f64().unwrap(), "{sample}");
    }
    assert_eq!(samples["objcache_hit_duration_seconds_count"], 4.0);
    assert!(samples.keys().any(|name| name.starts_with("objcache_trouble_total{reason=\"entry_")), "{text}");
    assert_eq!(sandbox.json_error(&["stats", "--openmetrics"], 2)["code"], "usage");

    // Where the parser of Prometheus' own client is installed, it is asked as well.
    let Some(python) = tool("python3") else { return };
    let script = "import sys\n\
        try: from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse\n\
        except ImportError: sys.exit(77)\n\
        assert len(list(parse(sys.stdin.read()))) > 15";
    let mut parser = Command::new(python).args(["-c", script]).stdin(Stdio::piped()).spawn().unwrap();
    parser.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let code = parser.wait().unwrap().code();
    assert!(code == Some(0) || code == Some(77), "{code:?}");
}

#[test]
fn top_sorts_by_what_was_asked_for() {
    let sandbox = used();
    let top = sandbox.json(&["top", "--sort", "hits"]);
    assert_eq!(
        (&top["entries"][0]["hits"], &top["entries"][0]["source_path"]),
        (&3.into(), &"saxpy.clif".into())
    );
    assert_eq!((&top["hits"], &top["misses"], &top["hits_per_second"]), (&4.into(), &2.into(), &().into()));
    for key in ["saved", "size", "used"] {
        assert_eq!(
            sandbox.json(&["top", "--once", "--sort", key, "-n", "1"])["entries"].as_array().unwrap().len(),
            1
        );
    }
    let saved: Vec<_> = sandbox.json(&["top"])["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["saved_us"].as_u64())
        .collect();
    assert!(saved.is_sorted_by_key(|saved| std::cmp::Reverse(*saved)), "{saved:?}");
    // Where there is no terminal it is said once.
    let said = sandbox.objcache(&["top"]).fine();
    assert!(said.starts_with("2 entries in ") && said.contains("4 hits of 6 look-ups (66.7 %)"), "{said}");
}
