//! `tidegate bench compare`: every system is measured and checked, and the report says so. How fast they are it does not say.

use serde_json::Value;

use crate::check_command::tidegate;

#[tokio::test(flavor = "multi_thread")]
async fn a_short_comparison_measures_every_system_and_writes_its_report() {
    let folder = std::env::temp_dir().join(format!("tidegate-compare-{:08x}", rand::random::<u32>()));
    let out = folder.to_str().expect("a path");
    let what = ["--workloads", "point,write-then-read", "--callers", "8", "--stream-rows", "2000", "--no-python"];
    let extent = [
        "--idle-sessions",
        "0",
        "--quick",
        "--rounds",
        "1",
        "--warm-up",
        "0",
        "--seconds",
        "2",
        "--out",
        out,
        "--json",
    ];
    let output = tidegate(&[&["bench", "compare"], &what[..], &extent].concat()).await;
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{errors}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("a document");
    let written = std::fs::read_to_string(folder.join("report.json")).expect("the report");
    std::fs::remove_dir_all(&folder).expect("the folder is removed");
    assert_eq!(serde_json::from_str::<Value>(&written).expect("a document"), report);

    assert_eq!((&report["schema"], &report["problems"]), (&1.into(), &Value::Array(Vec::new())), "{report}");
    let cells = report["cells"].as_array().expect("cells");
    let name =
        |cell: &Value| [&cell["workload"], &cell["system"]].map(|text| text.as_str().expect("a name").to_owned());
    let names: Vec<[String; 2]> = cells.iter().map(name).collect();
    let expected = ["point", "write-then-read"]
        .map(|workload| ["direct", "pgbouncer", "broker"].map(|system| [workload.to_owned(), system.to_owned()]));
    assert_eq!(names, expected.concat());
    for cell in cells {
        assert_eq!((&cell["callers"], cell["runs"].as_array().expect("runs").len()), (&8.into(), 1), "{cell}");
        assert!(cell["per_second"]["median"].as_f64().is_some_and(|rate| rate > 0.0), "{cell}");
        assert!(cell["p99_us"]["median"].as_f64() >= cell["p50_us"]["median"].as_f64(), "{cell}");
        // Direct callers have a connection each; the others no more than their pools, and the broker's probes.
        let connections = cell["connections_max"].as_u64().expect("a number");
        let most = if cell["system"] == "direct" { 8 } else { 3 * 20 };
        assert!((1..=most).contains(&connections), "{cell}");
        assert_eq!(cell["cpu_us_per_call"].is_null(), cell["system"] == "direct", "{cell}");
        assert!(cell["client_cpu_us_per_call"]["median"].as_f64().is_some_and(|cpu| cpu > 0.0), "{cell}");
    }
    let direct: Vec<_> =
        report["direct_sweep"].as_array().expect("cells").iter().map(|cell| &cell["callers"]).collect();
    assert_eq!(direct, [4, 8]);
    let fixed_rate = &report["fixed_rate"];
    assert_eq!(
        (&fixed_rate["callers"], fixed_rate["cells"].as_array().map(Vec::len)),
        (&8.into(), Some(2)),
        "{report}"
    );
    for cell in fixed_rate["cells"].as_array().expect("cells") {
        // No call was answered before it was sent.
        let at = |figure: &str| cell[figure]["median"].as_f64().expect("a figure");
        assert!(at("p99_us") > 0.0 && at("lag_p99_us") <= at("p99_us"), "{cell}");
    }
    let readers = report["streams"].as_array().expect("readers").iter().map(|reader| reader["system"].clone());
    assert_eq!(readers.collect::<Vec<_>>(), ["psql COPY", "tokio-postgres", "broker"]);
    // All of them were kept waiting, and all were told.
    assert_eq!(report["deadline"]["calls"], 320, "{report}");
    assert_eq!(report["targets"].as_array().expect("rows").len(), 13, "{report}");
}
