//! `dsm bench`: its figures, by their names.

mod common;

use common::{Place, start};
use std::collections::BTreeMap;
use std::time::Duration;

/// Figures that every machine has.
const NAMES: [&str; 16] = [
    "read",
    "accessor.get",
    "store.direct",
    "accessor.set",
    "store.trapped",
    "store.contended",
    "atomic.leased",
    "visible.2hosts",
    "updates.2hosts",
    "hole.64k",
    "hole.64k.memcpy",
    "hole.1m",
    "hole.1m.memcpy",
    "atomic.2hosts",
    "sem.handoff.2hosts",
    "barrier.2hosts",
];

#[test]
fn every_figure_has_its_floor_and_their_ratio() {
    let place = Place::new();
    let said = start(&mut place.command(&["bench", "--json", "--scale", "0.002"])).wait_for(Duration::from_secs(200));
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{}", said.out);
    let lines: Vec<serde_json::Value> = said.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let figures: BTreeMap<&str, &serde_json::Value> =
        lines.iter().map(|line| (line["name"].as_str().unwrap(), line)).collect();
    for name in NAMES {
        let figure = figures.get(name).unwrap_or_else(|| panic!("{name} is missing"));
        let number = |field: &str| figure[field].as_f64().unwrap_or_else(|| panic!("{name} has no {field}"));
        let (value, floor, ratio) = (number("value"), number("floor"), number("ratio"));
        assert!(value > 0.0 && floor > 0.0 && (ratio - value / floor).abs() < 1e-9, "{figure}");
        let unit = match name {
            "updates.2hosts" => "1/s",
            _ if name.starts_with("hole.") => "bytes/s",
            _ => "ns",
        };
        assert_eq!(figure["unit"], unit);
    }
    place.assert_empty();
}

#[test]
fn a_figure_can_be_had_alone() {
    let place = Place::new();
    for name in ["store.direct", "atomic.2hosts.relayed"] {
        let said = start(&mut place.command(&["bench", "--json", "--scale", "0.002", name]))
            .wait_for(Duration::from_secs(100));
        let figure: serde_json::Value = serde_json::from_str(said.out.trim()).unwrap();
        assert_eq!(figure["name"], name);
    }
    place.assert_empty();
}
