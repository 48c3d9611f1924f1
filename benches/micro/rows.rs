//! Rows from PostgreSQL's binary format to the wire's columns.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput};
use postgres_types::Type;
use prost::Message;
use tidegate::codec::{BatchBuilder, ColumnSpec};

/// Rows of one batch.
const ROWS: u64 = 1000;

/// One row: int8, text, numeric, timestamptz, float8; every 16th text is NULL.
fn row(number: i64) -> [Option<Vec<u8>>; 5] {
    // 12345.67 and so on: two groups of four digits before the point, one behind it, as numeric_send writes them.
    let groups = [1, (2345 + number % 1000) as i16, 6700];
    let head = [groups.len() as i16, 1, 0, 2];
    let numeric = head.into_iter().chain(groups).flat_map(i16::to_be_bytes).collect();
    let text = (number % 16 != 0).then(|| format!("customer {number} of the north").into_bytes());
    let micros = 788_918_400_000_000 + number * 1_234_567;
    [
        Some(number.to_be_bytes().to_vec()),
        text,
        Some(numeric),
        Some(micros.to_be_bytes().to_vec()),
        Some((number as f64 / 8.0).to_be_bytes().to_vec()),
    ]
}

const TYPES: [Type; 5] = [Type::INT8, Type::TEXT, Type::NUMERIC, Type::TIMESTAMPTZ, Type::FLOAT8];

fn builder(types: &[Type]) -> BatchBuilder {
    let specs = types.iter().map(|type_| ColumnSpec { name: "column", type_, type_modifier: -1 });
    BatchBuilder::new(specs).expect("types that are carried")
}

fn push(builder: &mut BatchBuilder, row: &[Option<Vec<u8>>]) {
    builder.push_row(row.iter().map(Option::as_deref), 4 << 20).expect("a row that fits");
}

pub(crate) fn bench(criterion: &mut Criterion) {
    let rows: Vec<_> = (0..ROWS as i64).map(row).collect();
    let mut group = criterion.benchmark_group("rows");
    group.throughput(Throughput::Elements(ROWS));
    group.bench_function("five_columns", |bencher| {
        let mut builder = builder(&TYPES);
        bencher.iter(|| {
            rows.iter().for_each(|row| push(&mut builder, black_box(row)));
            builder.take()
        });
    });
    for (at, type_) in TYPES.iter().enumerate() {
        group.bench_function(format!("one_column/{type_}"), |bencher| {
            let mut builder = builder(&TYPES[at..=at]);
            bencher.iter(|| {
                rows.iter().for_each(|row| push(&mut builder, black_box(&row[at..=at])));
                builder.take()
            });
        });
    }
    let mut filled = builder(&TYPES);
    group.bench_function("serialise", |bencher| {
        let mut batch = || {
            rows.iter().for_each(|row| push(&mut filled, row));
            filled.take()
        };
        bencher.iter_batched(&mut batch, |batch| batch.encode_to_vec(), BatchSize::LargeInput);
    });
    group.finish();
}
