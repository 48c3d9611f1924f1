//! Text forms as a PostgreSQL 15 server gave them: binary values (`encode(inet_send(x), 'hex')`) and `x::text`; bytes that
//! are no value; and any bytes at all.

use postgres_types::{Field, Kind, Type};
use proptest::prelude::*;

use super::{Text, write};
use crate::codec::{
    read::Stop,
    scalar::{Form, Scalar},
    test_support::bytes,
};

fn text(form: &Form, raw: &[u8]) -> Result<String, Stop> {
    text_within(usize::MAX, form, raw)
}

fn text_within(most: usize, form: &Form, raw: &[u8]) -> Result<String, Stop> {
    let mut out = Text::new(most);
    write(form, raw, &mut out).map(|()| out.as_str().to_owned())
}

const BUILT_IN: &[(Type, &str, &str)] = &[
    (Type::BIT, "00000005a8", "10101"),
    (Type::BIT, "00000000", ""),
    (Type::VARBIT, "00000009ff00", "111111110"),
    (Type::INET, "0220000401020304", "1.2.3.4/32"),
    (Type::INET, "020800040a010203", "10.1.2.3/8"),
    (Type::INET, "0380001000000000000000000000000000000000", "::/128"),
    (Type::INET, "0380001000000000000000000000000000000001", "::1/128"),
    (Type::INET, "0380001000000000000000000000000001020304", "::1.2.3.4/128"),
    (Type::INET, "0380001000000000000000000000ffff01020304", "::ffff:1.2.3.4/128"),
    (Type::INET, "0340001000010000000000020000000000000003", "1:0:0:2::3/64"),
    (Type::INET, "0380001000010002000300040005000600070008", "1:2:3:4:5:6:7:8/128"),
    (Type::INET, "0380001000000000000100000000000100000000", "::1:0:0:1:0:0/128"),
    (Type::CIDR, "0220010401020304", "1.2.3.4/32"),
    (Type::CIDR, "0320011020010db8000000000000000000000000", "2001:db8::/32"),
    (Type::MACADDR, "08002b0102f3", "08:00:2b:01:02:f3"),
    (Type::MACADDR8, "08002b010203040a", "08:00:2b:01:02:03:04:0a"),
    (Type::POINT, "3ff80000000000008000000000000000", "(1.5,-0)"),
    (Type::POINT, "44b52d02c7e14af63ef4f8b588e368f1", "(9.999999999999999e+22,2e-05)"),
    (Type::POINT, "7ff8000000000000fff0000000000000", "(NaN,-Infinity)"),
    (Type::POINT, "42dc12218377de4043118b54f22aeb00", "(123456789012345,1.234567890123456e+15)"),
    (Type::POINT, "3f1a36e2eb1c432d0000000000000001", "(0.0001,5e-324)"),
    (Type::POINT, "3e6000000000000042d4b434e93f3928", "(2.9802322387695312e-08,91056857480420.62)"),
    (Type::LSEG, "00000000000000003ff000000000000040000000000000004008000000000000", "[(0,1),(2,3)]"),
    (Type::BOX, "4000000000000000400800000000000000000000000000003ff0000000000000", "(2,3),(0,1)"),
    (Type::PATH, "000000000200000000000000003ff000000000000040000000000000004008000000000000", "[(0,1),(2,3)]"),
    (Type::PATH, "010000000100000000000000003ff0000000000000", "((0,1))"),
    (Type::POLYGON, "0000000200000000000000003ff000000000000040000000000000004008000000000000", "((0,1),(2,3))"),
    (Type::LINE, "3ff0000000000000c0000000000000000000000000000000", "{1,-2,0}"),
    (Type::CIRCLE, "00000000000000003ff00000000000004004000000000000", "<(0,1),2.5>"),
    (Type::TS_VECTOR, "00000000", ""),
    (
        Type::TS_VECTOR,
        "0000000363617400000240050006666174000002c002800469742773205c20000000",
        "'cat':5C,6 'fat':2A,4B 'it''s \\\\ '",
    ),
    (Type::TSQUERY, "00000000", ""),
    (Type::TSQUERY, "00000006020301000063000201020201090162000100006100", "!( 'a' & 'b':*AD ) | 'c'"),
    (Type::TSQUERY, "000000050204000102040003010000630001000062000100006100", "'a' <-> ( 'b' <3> 'c' )"),
    (Type::TSQUERY, "000000050204000101000063000204000101000062000100006100", "'a' <-> 'b' <-> 'c'"),
    (Type::TSQUERY, "0000000502020201020101000078000100006974277300", "'it''s' & !!'x'"),
    (Type::XID8, "ffffffffffffffff", "18446744073709551615"),
    (Type::TID, "ffffffff0007", "(4294967295,7)"),
    (Type::PG_SNAPSHOT, "00000002000000000000000a0000000000000014000000000000000a000000000000000e", "10:20:10,14"),
    (Type::PG_SNAPSHOT, "0000000000000000000000010000000000000001", "1:1:"),
    (Type::JSONPATH, "01242e2261225b2a5d", "$.\"a\"[*]"),
    (Type::INT4_RANGE, "01", "empty"),
    (Type::INT4_RANGE, "0200000004000000010000000400000005", "[1,5)"),
    (Type::INT4_RANGE, "18", "(,)"),
    (Type::NUM_RANGE, "100000000c000200000000000200011388", "(1.50,)"),
    (
        Type::TS_RANGE,
        "0600000008000000000000000000000008000000141dd76000",
        "[\"2000-01-01 00:00:00\",\"2000-01-02 00:00:00\"]",
    ),
    (Type::INT8MULTI_RANGE, "00000000", "{}"),
    (
        Type::INT8MULTI_RANGE,
        "0000000200000019020000000800000000000000010000000800000000000000050000000d12000000080000000000000007",
        "{[1,5),[7,)}",
    ),
];

#[test]
fn built_in_types() {
    for (type_, hex, want) in BUILT_IN {
        let form = Form::of(type_).unwrap();
        assert_eq!(text(&form, &bytes(hex)).as_deref(), Ok(*want), "{type_} {hex}");
    }
}

fn user(name: &str, kind: Kind) -> Type {
    Type::new(name.into(), 90_000, kind, "public".into())
}

fn range(bound: Type) -> Form {
    Form::of(&user("r", Kind::Range(bound))).unwrap()
}

fn pair() -> Type {
    let fields = vec![Field::new("n".into(), Type::INT4), Field::new("t".into(), Type::TEXT)];
    user("pair", Kind::Composite(fields))
}

/// What is in a range is written as its output function does, in quotes where the range would be read otherwise.
#[test]
fn ranges_of_every_kind_of_value() {
    let table = [
        (Type::TEXT, "060000000000000005612062225c", r#"["","a b""\\"]"#),
        (
            pair(),
            "020000001f000000020000001700000004000000010000001900000007612022712220620000001800000002000000170000000400000\
             00200000019ffffffff",
            r#"["(1,""a """"q"""" b"")","(2,)")"#,
        ),
        (
            Type::INT4_ARRAY,
            "020000003c00000002000000000000001700000002000000010000000200000001000000040000000100000004000000020000000400\
             0000030000000400000004000000200000000100000001000000170000000200000000000000040000\
             0005ffffffff",
            r#"["{{1,2},{3,4}}","[0:1]={5,NULL}")"#,
        ),
        (Type::FLOAT4, "060000000400000001000000043f8ccccd", "[1e-45,1.1]"),
        (Type::FLOAT4, "060000000447f12000000000044996b438", "[123456,1.234567e+06]"),
        (Type::BYTEA, "02000000010000000001ff", r#"["\\x00","\\xff")"#),
        (Type::INET, "02000000080220000401020304000000080218000401020400", "[1.2.3.4,1.2.4.0/24)"),
        (Type::BOOL, "0600000001000000000101", "[f,t]"),
    ];
    for (bound, hex, want) in table {
        assert_eq!(text(&range(bound.clone()), &bytes(hex)).as_deref(), Ok(want), "{bound} {hex}");
    }
}

#[test]
fn arrays() {
    let boxes = "00000001000000000000025b0000000200000001000000203ff00000000000003ff00000000000000000000000000000000000000000\
                 0000000000204000000000000000400000000000000000000000000000000000000000000000";
    assert_eq!(text(&Form::of(&Type::BOX_ARRAY).unwrap(), &bytes(boxes)).as_deref(), Ok("{(1,1),(0,0);(2,2),(0,0)}"));
    let texts = "00000001000000010000001900000006000000010000000361206200000000000000044e554c4c0000000378225cffffffff000000\
                 017b";
    let want = r#"{"a b","","NULL","x\"\\",NULL,"{"}"#;
    assert_eq!(text(&Form::of(&Type::TEXT_ARRAY).unwrap(), &bytes(texts)).as_deref(), Ok(want));
}

/// A `numeric` of 10 bytes whose text has 131,069 digits.
const LONG_NUMERIC: [u8; 10] = [0, 1, 0x7F, 0xFF, 0, 0, 0, 0, 0, 1];

/// A range of two of them.
fn long_range() -> Vec<u8> {
    let bound = [10_i32.to_be_bytes().as_slice(), &LONG_NUMERIC].concat();
    [&[2], bound.as_slice(), &bound].concat()
}

#[test]
fn a_text_that_is_longer_than_there_is_room_is_not_written() {
    const COUNT: u32 = 500;
    const ROOM: usize = 1 << 20;
    let sized = |value: &[u8]| [u32::try_from(value.len()).unwrap().to_be_bytes().as_slice(), value].concat();
    let multirange = [COUNT.to_be_bytes().to_vec(), sized(&long_range()).repeat(COUNT as usize)].concat();
    let array = [1, 0, 1700, COUNT, 1].map(u32::to_be_bytes).concat();
    let array = [array, sized(&LONG_NUMERIC).repeat(COUNT as usize)].concat();
    // Rows in one another around a quote, which becomes thousands.
    let (mut quotes, mut row) = (Type::TEXT, b"\"".repeat(1000));
    for _ in 0..12 {
        quotes = user("r", Kind::Composite(vec![Field::new("f".into(), quotes)]));
        row = [1_u32.to_be_bytes().to_vec(), vec![0; 4], sized(&row)].concat();
    }
    let all = [
        (Form::of(&user("m", Kind::Multirange(Type::NUMERIC))).unwrap(), multirange),
        (Form::of(&Type::NUMERIC_ARRAY).unwrap(), array),
        (Form::of(&quotes).unwrap(), row),
        (Form::Scalar(Scalar::Bits), [(8_i32 << 20).to_be_bytes().to_vec(), vec![0; 1 << 20]].concat()),
    ];
    for (form, raw) in all {
        let mut out = Text::new(ROOM);
        assert_eq!(write(&form, &raw, &mut out), Err(Stop::Full), "{form:?}");
        assert!(out.capacity() <= 2 * ROOM, "{form:?}: {} bytes", out.capacity());
    }
}

#[test]
fn a_text_fits_to_the_byte() {
    let built_in = BUILT_IN.iter().map(|(type_, hex, _)| (Form::of(type_).unwrap(), bytes(hex)));
    for (form, raw) in built_in.chain([(range(Type::NUMERIC), long_range())]) {
        let whole = text(&form, &raw).unwrap();
        assert_eq!(text_within(whole.len(), &form, &raw), Ok(whole.clone()));
        for less in (0..whole.len()).rev().take(16) {
            assert_eq!(text_within(less, &form, &raw), Err(Stop::Full), "{whole:.40} in {less} bytes");
        }
    }
}

#[test]
fn types_have_a_depth_and_a_number_of_parts() {
    let deep = |levels: usize| (0..levels).fold(Type::INT4, |part, _| user("t", Kind::Array(part)));
    assert!(Form::of(&deep(63)).is_ok());
    // As deep as nobody's stack is, and as wide as nobody's memory.
    let fields = |part: Type| vec![Field::new("a".into(), part.clone()), Field::new("b".into(), part)];
    let wide = (0..60).fold(Type::INT4, |part, _| user("t", Kind::Composite(fields(part))));
    for type_ in [deep(64), deep(1000), wide.clone(), user("r", Kind::Range(wide))] {
        let why = Form::of(&type_).unwrap_err().0;
        assert!(why.contains("4096 parts") && why.contains("64 deep"), "{why}");
    }
    let table = (0..1600).map(|_| Field::new("c".into(), Type::INT4)).collect();
    assert!(Form::of(&user("table", Kind::Composite(table))).is_ok());
}

#[test]
fn hstore() {
    let form = Form::of(&user("hstore", Kind::Simple)).unwrap();
    let pairs = bytes("000000020000000162ffffffff00000005612022712200000002765c");
    assert_eq!(text(&form, &pairs).as_deref(), Ok(r#""b"=>NULL, "a \"q\""=>"v\\""#));
    assert_eq!(text(&form, &[0; 4]).as_deref(), Ok(""));
}

/// The text of a range cannot hold what has none; then the range has none either.
#[test]
fn a_range_of_an_unknown_type_is_raw() {
    for bound in [user("cube", Kind::Simple), Type::INT2_VECTOR, user("cubes", Kind::Array(user("cube", Kind::Simple)))]
    {
        assert_eq!(range(bound), Form::Raw);
    }
    assert!(Form::of(&user("r", Kind::Range(Type::MONEY))).unwrap_err().0.contains("its bounds have the type money"));
    assert_eq!(Form::of_oid(23), Some(Form::Scalar(Scalar::Int4)));
    assert_eq!((Form::of_oid(90_000), Form::of_oid(Type::REGCLASS.oid())), (Some(Form::Raw), None));
}

#[test]
fn malformed_bytes_are_errors() {
    let table = [
        (Type::BIT, "00000009ff"),
        (Type::BIT, "ffffffff"),
        (Type::INET, "0221000401020304"),
        (Type::INET, "0420000401020304"),
        (Type::INET, "02200010010203040506070809"),
        (Type::MACADDR, "0102030405"),
        (Type::TID, "0000000000"),
        (Type::PG_SNAPSHOT, "7fffffff00000000000000010000000000000001"),
        (Type::POINT, "00"),
        (Type::PATH, "017fffffff"),
        (Type::POLYGON, "ffffffff"),
        (Type::LINE, "3ff0000000000000c000000000000000000000000000000000"),
        (Type::TS_VECTOR, "7fffffff"),
        (Type::TS_VECTOR, "ffffffff"),
        (Type::TS_VECTOR, "0000000161"),
        (Type::TS_VECTOR, "0000000161000001"),
        (Type::TSQUERY, "ffffffff"),
        // An operator without operands, an operand without an operator, an unknown operator, an unknown item.
        (Type::TSQUERY, "000000010201"),
        (Type::TSQUERY, "000000020100006100010000620001"),
        (Type::TSQUERY, "00000002010000610001000062 00"),
        (Type::TSQUERY, "000000010205"),
        (Type::TSQUERY, "0000000103"),
        (Type::JSONPATH, "0224"),
        (Type::INT4_RANGE, ""),
        (Type::INT4_RANGE, "0100"),
        (Type::INT4_RANGE, "02ffffffff0000000400000005"),
        (Type::INT4_RANGE, "02000000050000000100000004"),
        (Type::INT8MULTI_RANGE, "ffffffff"),
        (Type::TEXT_ARRAY, "000000017fffffff00000019ffffffff00000001"),
        (Type::TEXT_ARRAY, "000000070000000000000019"),
    ];
    for (type_, hex) in table {
        let raw = bytes(&hex.replace(' ', ""));
        assert!(text(&Form::of(&type_).unwrap(), &raw).is_err(), "{type_} {hex}");
    }
    assert!(text(&Form::of(&user("hstore", Kind::Simple)).unwrap(), &[0x7F, 0, 0, 0]).is_err());
    assert!(text(&Form::of(&pair()).unwrap(), &[0, 0, 0, 1, 0, 0, 0, 23, 0xFF, 0xFF, 0xFF, 0xFF]).is_err());
}

/// As deep as a query is long, and no deeper on the stack: `!!!…a`, and `a & a & …`.
#[test]
fn long_queries_do_not_exhaust_the_stack() {
    const LENGTH: u32 = 200_000;
    let leaf = [1, 0, 0, b'a', 0];
    let mut nots = (LENGTH + 1).to_be_bytes().to_vec();
    nots.extend([2, 1].repeat(LENGTH as usize));
    nots.extend(leaf);
    let mut ands = (2 * LENGTH + 1).to_be_bytes().to_vec();
    ands.extend([&[2, 2], leaf.as_slice()].concat().repeat(LENGTH as usize));
    ands.extend(leaf);
    let form = Form::Scalar(Scalar::TsQuery);
    assert_eq!(text(&form, &nots).unwrap().len(), LENGTH as usize + 3);
    assert!(text(&form, &ands).unwrap().starts_with("'a' & 'a' & 'a'"));
}

fn all_forms() -> Vec<Form> {
    let built_in = BUILT_IN.iter().map(|(type_, _, _)| Form::of(type_).unwrap());
    let others =
        [Type::INT4_ARRAY, Type::BOX_ARRAY, Type::TEXT_ARRAY, Type::NUMERIC, Type::INTERVAL, Type::TIMETZ, pair()];
    let others = others.iter().flat_map(|type_| [Form::of(type_).unwrap(), range(type_.clone())]);
    built_in.chain(others).chain([Form::Scalar(Scalar::Hstore)]).collect()
}

proptest! {
    /// Whatever a server sends: a text or an error.
    #[test]
    fn no_bytes_panic(raw in prop::collection::vec(prop_oneof![any::<u8>(), 0..5_u8], 0..80)) {
        for form in all_forms() {
            let _ = text(&form, &raw);
        }
    }

    /// Nor what is nearly a value: cut, or with one byte changed.
    #[test]
    fn no_damaged_value_panics(which in 0..BUILT_IN.len(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let (type_, hex, _) = &BUILT_IN[which];
        let mut raw = bytes(hex);
        prop_assume!(!raw.is_empty());
        let at = at.index(raw.len());
        let form = Form::of(type_).unwrap();
        let _ = text(&form, &raw[..at]);
        raw[at] = byte;
        let _ = text(&form, &raw);
    }

    /// The digits are read back as the same number, and have PostgreSQL's shape.
    #[test]
    fn floats_are_read_back(bits in any::<u64>()) {
        let (double, single) = (f64::from_bits(bits), f32::from_bits(bits as u32));
        let doubles = text(&Form::Scalar(Scalar::Float8), &double.to_be_bytes()).unwrap();
        let singles = text(&Form::Scalar(Scalar::Float4), &single.to_be_bytes()).unwrap();
        prop_assert!(double.is_nan() && doubles == "NaN" || doubles.parse::<f64>().unwrap().to_bits() == double.to_bits());
        prop_assert!(single.is_nan() && singles == "NaN" || singles.parse::<f32>().unwrap().to_bits() == single.to_bits());
        prop_assert!(doubles.len() <= 24 && singles.len() <= 15, "{} {}", doubles, singles);
    }
}
