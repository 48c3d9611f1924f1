//! Text forms as a PostgreSQL 15 server gave them: tables of binary values (`encode(numeric_send(x), 'hex')`) and `x::text`.

use postgres_types::Type;
use tidegate_client::proto::{ArrayValue, Value, value::Kind};

use super::CodecError;
use crate::codec::test_support::{BatchBuilder, bytes};

fn text(type_: &Type, hex: &str) -> Result<String, CodecError> {
    let mut batch = BatchBuilder::new(std::slice::from_ref(type_))?;
    batch.push_row(std::iter::once(Some(bytes(hex).as_slice())))?;
    Ok(batch.take().columns[0].texts[0].clone())
}

fn check(type_: &Type, table: &[(&str, &str)]) {
    for (hex, want) in table {
        assert_eq!(&text(type_, hex).unwrap(), want, "{type_} {hex}");
    }
}

#[test]
fn numeric() {
    check(
        &Type::NUMERIC,
        &[
            ("0000000000000000", "0"),
            ("0000000000000002", "0.00"),
            ("00010000000000000001", "1"),
            ("00010000400000000001", "-1"),
            ("00010001000000000001", "10000"),
            ("0001000000000000270f", "9999"),
            ("0001000100000000270f", "99990000"),
            ("0001ffff000000040001", "0.0001"),
            ("0001fffe0000000503e8", "0.00001"),
            ("0001ffff4000000203e8", "-0.10"),
            ("0002000000000002000103e8", "1.10"),
            ("0006000200000009000109291a8504d2162e2328", "123456789.123456789"),
            ("00010005000000000001", "100000000000000000000"),
            ("0001fffa0000001503e8", "0.000000000000000000001"),
            ("0001fffb000000140001", "0.00000000000000000001"),
            ("00000000c0000000", "NaN"),
            ("00000000d0000020", "Infinity"),
            ("00000000f0000020", "-Infinity"),
            ("0003000100000004000109291770", "12345.6000"),
            ("0001ffff00000004270f", "0.9999"),
            ("0003000140000008270f270f270f", "-99999999.99990000"),
            ("0001ffff000000080001", "0.00010000"),
            ("0003000100000004000100000001", "10000.0001"),
        ],
    );
}

#[test]
fn date() {
    check(
        &Type::DATE,
        &[
            ("00000000", "2000-01-01"),
            ("ffffffff", "1999-12-31"),
            ("ffffd533", "1970-01-01"),
            ("00002279", "2024-02-29"),
            ("fff4dbf9", "0001-01-01"),
            ("fff4dbf8", "0001-12-31 BC"),
            ("fff49d7b", "0044-03-15 BC"),
            ("ffda9915", "4713-11-24 BC"),
            ("ffda97a7", "4714-11-24 BC"),
            ("002c95d3", "9999-12-31"),
            ("002c95d4", "10000-01-01"),
            ("7fda970c", "5874897-12-31"),
            ("7fffffff", "infinity"),
            ("80000000", "-infinity"),
            ("ffff718f", "1900-03-01"),
            ("00008ee7", "2100-02-28"),
        ],
    );
}

#[test]
fn time() {
    check(
        &Type::TIME,
        &[
            ("0000000000000000", "00:00:00"),
            ("000000141dd75fff", "23:59:59.999999"),
            ("000000141dd76000", "24:00:00"),
            ("0000000a8be4ca60", "12:34:56.7"),
            ("0000000a8bdb2d70", "12:34:56.07"),
            ("0000000000000001", "00:00:00.000001"),
            ("00000000dde878c0", "01:02:03"),
        ],
    );
}

#[test]
fn timetz() {
    check(
        &Type::TIMETZ,
        &[
            ("000000000000000000000000", "00:00:00+00"),
            ("0000000a8be62608ffffe3e0", "12:34:56.789+02"),
            ("0000000a8bda1c0000003138", "12:34:56-03:30"),
            ("000000141dd76000ffff1f3c", "24:00:00+15:59"),
            ("00000000ddf019e00000e0ff", "01:02:03.5-15:59:59"),
            ("00000000dde878c0ffffaf24", "01:02:03+05:45"),
            ("000000036c8bc08000007080", "04:05:06-08"),
            ("000000036c8bc080ffffffff", "04:05:06+00:00:01"),
        ],
    );
}

#[test]
fn timestamp() {
    check(
        &Type::TIMESTAMP,
        &[
            ("0000000000000000", "2000-01-01 00:00:00"),
            ("ffffffffffffffff", "1999-12-31 23:59:59.999999"),
            ("0002b58341712a60", "2024-02-29 12:34:56.7"),
            ("fffca2fec4c8200a", "1970-01-01 00:00:00.00001"),
            ("ff1af9e8fb4e7120", "0044-03-15 12:00:00.5 BC"),
            ("fd0f7cc1411fa000", "4714-11-24 00:00:00 BC"),
            ("0380e70b913b8000", "10000-01-01 00:00:00"),
            ("7fffff5bb3b29fff", "294276-12-31 23:59:59.999999"),
            ("7fffffffffffffff", "infinity"),
            ("8000000000000000", "-infinity"),
            ("ff1fe2ffc59c6000", "0001-01-01 00:00:00"),
            ("ffd1399cf6174240", "1582-10-15 00:00:01"),
        ],
    );
}

#[test]
fn timestamptz() {
    check(
        &Type::TIMESTAMPTZ,
        &[
            ("0000000000000000", "2000-01-01 00:00:00+00"),
            ("ffffffffffffffff", "1999-12-31 23:59:59.999999+00"),
            ("0002b5819449e260", "2024-02-29 10:34:56.7+00"),
            ("ff1af9e8fb4e7120", "0044-03-15 12:00:00.5+00 BC"),
            ("fd0f7cc1411fa000", "4714-11-24 00:00:00+00 BC"),
            ("0380e70b913b8000", "10000-01-01 00:00:00+00"),
            ("7fffff5bb3b29fff", "294276-12-31 23:59:59.999999+00"),
            ("7fffffffffffffff", "infinity"),
            ("8000000000000000", "-infinity"),
        ],
    );
}

/// The infinite ones are from PostgreSQL 17.
#[test]
fn interval() {
    check(
        &Type::INTERVAL,
        &[
            ("00000000000000000000000000000000", "00:00:00"),
            ("0000000000000000000000000000000c", "1 year"),
            ("000000000000000000000000fffffff4", "-1 years"),
            ("00000000000000000000000000000018", "2 years"),
            ("00000000000000000000000000000001", "1 mon"),
            ("000000000000000000000000ffffffff", "-1 mons"),
            ("000000036c97ca88fffffffd0000000e", "1 year 2 mons -3 days +04:05:06.789"),
            ("fffffffffff0bdc00000000000000000", "-00:00:01"),
            ("00000000000000010000000000000000", "00:00:00.000001"),
            ("fffffffffff85ee00000000000000000", "-00:00:00.5"),
            ("00000000000000000000000100000000", "1 day"),
            ("0000000000000000ffffffff00000000", "-1 days"),
            ("fffffffffff0bdc00000000100000000", "1 day -00:00:01"),
            ("00000000000f4240ffffffff00000000", "-1 days +00:00:01"),
            ("000000000000000000000001ffffffff", "-1 mons +1 day"),
            ("000000000000000000000000fffffff5", "-11 mons"),
            ("0000000000000000ffffffffffffffff", "-1 mons -1 days"),
            ("00000000d693a40000000000ffffffff", "-1 mons +01:00:00"),
            ("00000053d1ac10000000000000000000", "100:00:00"),
            ("7fffffffffffffff0000000000000000", "2562047788:00:54.775807"),
            ("0000000000000000000000007f50c600", "178000000 years"),
            ("00000000000000000000000080000000", "-178956970 years -8 mons"),
            ("00000000000000007fffffff00000000", "2147483647 days"),
            ("00000000000000008000000000000000", "-2147483648 days"),
            ("000000000000000000000005ffffffff", "-1 mons +5 days"),
            ("000000141dd738f00000000000000000", "23:59:59.99"),
            ("fffffffc93743f8000000003fffffff2", "-1 years -2 mons +3 days -04:05:06"),
            ("7fffffffffffffff7fffffff7fffffff", "infinity"),
            ("80000000000000008000000080000000", "-infinity"),
        ],
    );
}

#[test]
fn uuid() {
    check(&Type::UUID, &[("a0eebc999c0b4ef8bb6d6bb9bd380a11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11")]);
}

#[test]
fn pg_lsn() {
    check(
        &Type::PG_LSN,
        &[
            ("00000016b374d848", "16/B374D848"),
            ("0000000000000000", "0/0"),
            ("ffffffffffffffff", "FFFFFFFF/FFFFFFFF"),
            ("000000010000000a", "1/A"),
        ],
    );
}

#[test]
fn one_byte_char() {
    check(&Type::CHAR, &[("61", "a"), ("00", ""), ("80", "\\200"), ("5c", "\\")]);
}

#[test]
fn jsonb() {
    check(
        &Type::JSONB,
        &[
            ("017b2261223a205b312e35302c206e756c6c5d2c202262223a20317d", "{\"a\": [1.50, null], \"b\": 1}"),
            ("01227822", "\"x\""),
        ],
    );
}

#[test]
fn json() {
    check(&Type::JSON, &[("7b2262223a20312c20202261223a5b312e35302c6e756c6c5d7d", "{\"b\": 1,  \"a\":[1.50,null]}")]);
}

/// As stored: the blanks that pad it stay, which a cast to text would take off.
#[test]
fn bpchar() {
    // As a cast takes it off: blanks, and nothing else.
    check(&Type::BPCHAR, &[("61622020", "ab"), ("200961200920", " \ta \t"), ("2020", ""), ("", "")]);
    let elements = [1, 0, 1042, 1, 1, 4, 0x6162_2020].map(u32::to_be_bytes).concat();
    let mut batch = BatchBuilder::new(&[Type::BPCHAR_ARRAY]).unwrap();
    batch.push_row([Some(elements.as_slice())].into_iter()).unwrap();
    assert!(format!("{:?}", batch.take().columns[0].nested[0]).contains("\"ab  \""), "within an array it stays");
}

#[test]
fn name() {
    check(&Type::NAME, &[("6162", "ab")]);
}

#[test]
fn numeric_beyond_any_float() {
    let googol_to_the_fourth = text(&Type::NUMERIC, "00010064000000000001").unwrap();
    assert_eq!(googol_to_the_fourth, format!("1{}", "0".repeat(400)));
}

#[test]
fn text_unknown_and_void() {
    check(&Type::TEXT, &[("", ""), ("c3a9", "é")]);
    check(&Type::VARCHAR, &[("6162", "ab")]);
    check(&Type::UNKNOWN, &[("61", "a")]);
    check(&Type::VOID, &[("", "")]);
}

/// Writes an array like its `::text`, without quotes, so that the server's golden texts can be compared with it.
fn sketch(value: &Value) -> String {
    match value.kind.as_ref().unwrap() {
        Kind::NullValue(_) => "NULL".to_owned(),
        Kind::BoolValue(value) => if *value { "t" } else { "f" }.to_owned(),
        Kind::Int64Value(value) => value.to_string(),
        Kind::DoubleValue(value) => value.to_string(),
        Kind::TextValue(value) => value.clone(),
        Kind::BytesValue(value) => format!("{value:x?}"),
        Kind::ArrayValue(ArrayValue { elements, dimensions, lower_bounds }) => {
            let elements: Vec<_> = elements.iter().map(sketch).collect();
            format!("{dimensions:?} {lower_bounds:?} {}", elements.join(","))
        }
        Kind::RowValue(_) => panic!("no rows in arrays"),
    }
}

#[test]
fn arrays() {
    let table = [
        (Type::INT4_ARRAY, "000000000000000000000017", "[] [] "),
        (
            Type::INT4_ARRAY,
            "000000010000000100000017000000030000000100000004000000010000000400000002ffffffff",
            "[3] [1] 1,2,NULL",
        ),
        (
            Type::INT8_ARRAY,
            "0000000200000000000000140000000200000001000000020000000100000008000000000000000100000008000000000000000200\
             000008000000000000000300000008\
             0000000000000004",
            "[2, 2] [1, 1] 1,2,3,4",
        ),
        (Type::INT2_ARRAY, "0000000100000000000000150000000200000000000000020007000000020008", "[2] [0] 7,8"),
        (
            Type::TEXT_ARRAY,
            "00000002000000010000001900000002ffffffff00000002000000050000000161ffffffff00000000000000034e2278",
            "[2, 2] [-1, 5] a,NULL,,N\"x",
        ),
        (
            Type::NUMERIC_ARRAY,
            "0000000100000000000006a400000002000000010000000c0002000000000002000113880000000800000000c0000000",
            "[2] [1] 1.50,NaN",
        ),
        (Type::BOOL_ARRAY, "000000010000000000000010000000020000000100000001010000000100", "[2] [1] t,f"),
        (Type::BYTEA_ARRAY, "000000010000000100000011000000020000000100000002deadffffffff", "[2] [1] [de, ad],NULL"),
        (
            Type::FLOAT4_ARRAY,
            "0000000100000000000002bc0000000200000001000000043fc000000000000480000000",
            "[2] [1] 1.5,-0",
        ),
        (
            Type::DATE_ARRAY,
            "00000001000000000000043a0000000200000001000000047fffffff0000000400000000",
            "[2] [1] infinity,2000-01-01",
        ),
        (
            Type::INT2_VECTOR,
            "0000000100000000000000150000000300000000000000020001000000020002000000020003",
            "[3] [0] 1,2,3",
        ),
        (
            Type::VARCHAR_ARRAY,
            "0000000300000000000004130000000100000001000000010000000100000001000000010000000161",
            "[1, 1, 1] [1, 1, 1] a",
        ),
    ];
    for (type_, hex, want) in table {
        let mut batch = BatchBuilder::new(std::slice::from_ref(&type_)).unwrap();
        batch.push_row(std::iter::once(Some(bytes(hex).as_slice()))).unwrap();
        assert_eq!(sketch(&batch.take().columns[0].nested[0]), want, "{type_}");
    }
}

#[test]
fn malformed_bytes_are_errors() {
    let table = [
        (Type::NUMERIC, "000100000000"),
        (Type::NUMERIC, "00010000000000002710"),
        (Type::NUMERIC, "00020000000000000001"),
        (Type::NUMERIC, "000100000000000000010001"),
        (Type::NUMERIC, "0000000012340000"),
        (Type::NUMERIC, "0000000000004000"),
        (Type::DATE, "000000"),
        (Type::TIME, "ffffffffffffffff"),
        (Type::TIME, "000000141dd76001"),
        (Type::TIMESTAMP, "000000000000000000"),
        (Type::INTERVAL, "00"),
        (Type::UUID, "00"),
        (Type::JSONB, ""),
        (Type::JSONB, "027b7d"),
        (Type::TEXT, "ff"),
        (Type::CHAR, ""),
        (Type::VOID, "00"),
        (Type::BOOL, ""),
        (Type::INT2, "000000"),
        (Type::FLOAT8, "00"),
        // Arrays: seven dimensions; a negative length; elements missing, cut, left over; a wrong element.
        (Type::INT4_ARRAY, "000000070000000000000017"),
        (Type::INT4_ARRAY, "000000010000000000000017ffffffff00000001"),
        (Type::INT4_ARRAY, "0000000100000000000000177fffffff00000001"),
        (Type::INT4_ARRAY, "0000000100000000000000170000000100000001000000040000"),
        (Type::INT4_ARRAY, "00000001000000000000001700000001000000010000000400000000ff"),
        (Type::INT4_ARRAY, "0000000100000000000000170000000100000001fffffffe"),
        (Type::INT4_ARRAY, "000000010000000000000017000000010000000100000002abcd"),
    ];
    for (type_, hex) in table {
        let error = BatchBuilder::new(std::slice::from_ref(&type_))
            .unwrap()
            .push_row(std::iter::once(Some(bytes(hex).as_slice())))
            .unwrap_err();
        assert!(matches!(error, CodecError::MalformedCell { .. }), "{type_} {hex}: {error}");
    }
}
