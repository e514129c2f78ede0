//! The language as a table of expressions and values.

use serde_json::json;

use super::*;

fn variables() -> BTreeMap<&'static str, Value> {
    let payload = json!({
        "n": 5, "zero": 0, "f": 2.5, "text": "hello", "empty": "", "list": [3, 1, 2], "tags": ["a", "b"],
        "nested": {"deep": {"x": true}, "with space": 1}, "nothing": null, "big": i64::MAX,
    });
    BTreeMap::from([(
        "event",
        json!({"id": 7, "trigger": 3, "trigger_ref": "core.timer", "payload": payload, "created": "2026-01-01T00:00:00Z"}),
    )])
}

fn value(text: &str) -> Result<Value, ExpressionError> {
    Expression::parse(text)?.evaluate(&variables())
}

#[track_caller]
fn check(table: &[(&str, Value)]) {
    for (text, expected) in table {
        assert_eq!(value(text).as_ref(), Ok(expected), "{text}");
    }
}

#[track_caller]
fn fails(table: &[(&str, &str)]) {
    for (text, part) in table {
        let error = value(text).expect_err(text).to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
}

#[test]
fn literals_of_every_kind() {
    check(&[
        ("1", json!(1)),
        ("1.5", json!(1.5)),
        ("1e3", json!(1000.0)),
        ("'it\\'s'", json!("it's")),
        (r#""a\n\"b\"""#, json!("a\n\"b\"")),
        ("true", json!(true)),
        ("False", json!(false)),
        ("None", json!(null)),
        ("[1, 'a', [],]", json!([1, "a", []])),
        ("{'a': 1, 'b': [2]}", json!({"a": 1, "b": [2]})),
        ("{{ 1 + 1 }}", json!(2)),
        ("{{event.id}}", json!(7)),
        ("'ü' + '🙂'", json!("ü🙂")),
    ]);
}

#[test]
fn arithmetic_follows_python() {
    check(&[
        ("1 + 2 * 3", json!(7)),
        ("(1 + 2) * 3", json!(9)),
        ("7 / 2", json!(3.5)),
        ("6 / 2", json!(3.0)),
        ("7 % 3", json!(1)),
        ("-7 % 3", json!(2)),
        ("7 % -3", json!(-2)),
        ("-7.5 % 2", json!(0.5)),
        ("2 - 3 - 4", json!(-5)),
        ("--2", json!(2)),
        ("1 + 0.5", json!(1.5)),
        ("'a' + 'b'", json!("ab")),
        ("[1] + [2]", json!([1, 2])),
    ]);
    fails(&[
        ("1 / 0", "division by zero"),
        ("1 % 0.0", "division by zero"),
        ("event.payload.big + 1", "too large"),
        ("-9223372036854775807 - 2", "too large"),
        ("1e308 * 10", "too large"),
        ("1 + '1'", "+ does not work on number and string"),
        ("true + 1", "+ does not work on bool and number"),
        ("-'a'", "- does not work on string"),
    ]);
}

#[test]
fn comparisons_and_membership() {
    check(&[
        ("1 == 1.0", json!(true)),
        ("[1, {'a': 1.0}] == [1.0, {'a': 1}]", json!(true)),
        ("1 != '1'", json!(true)),
        ("true == 1", json!(false)),
        ("2 > 1.5", json!(true)),
        ("'a' < 'b'", json!(true)),
        ("[1, 2] < [1, 3]", json!(true)),
        ("event.payload.n >= 5", json!(true)),
        ("'ell' in event.payload.text", json!(true)),
        ("2 in event.payload.list", json!(true)),
        ("2.0 in event.payload.list", json!(true)),
        ("'n' in event.payload", json!(true)),
        ("9 not in event.payload.list", json!(true)),
        ("not 9 in event.payload.list", json!(true)),
    ]);
    fails(&[
        ("1 < 'a'", "< does not work on number and string"),
        ("null < 1", "< does not work on null and number"),
        ("1 in 5", "cannot be looked for"),
        ("1 < 2 < 3", "cannot be chained"),
    ]);
}

#[test]
fn and_or_not_are_lazy_and_yield_operands() {
    check(&[
        ("0 or 'x'", json!("x")),
        ("'' or null", json!(null)),
        ("1 and 'x'", json!("x")),
        ("0 and 1 / 0", json!(0)),
        ("1 or 1 / 0", json!(1)),
        ("not []", json!(true)),
        ("not not {'a': 0}", json!(true)),
        ("true or false and false", json!(true)),
        ("1 == 1 && !(2 == 3) || false", json!(true)),
    ]);
}

#[test]
fn truth_follows_python() {
    for (text, expected) in [
        ("null", false),
        ("0", false),
        ("0.0", false),
        ("''", false),
        ("[]", false),
        ("{}", false),
        ("'false'", true),
        ("[0]", true),
        ("-1", true),
        ("event.payload.missing", false),
    ] {
        let holds = Expression::parse(text).unwrap().holds(&variables());
        assert_eq!(holds, Ok(expected), "{text}");
    }
}

#[test]
fn fields_and_indexes() {
    check(&[
        ("event.trigger_ref", json!("core.timer")),
        ("event.payload.nested.deep.x", json!(true)),
        ("event['payload']['nested']['with space']", json!(1)),
        ("event.payload.list[0]", json!(3)),
        ("event.payload.list.1", json!(1)),
        ("event.payload.list[-1]", json!(2)),
        ("event.payload.text[1]", json!("e")),
        ("event.payload.missing", json!(null)),
        ("event.payload.missing.deeper['x']", json!(null)),
        ("{'a': {'b': [1]}}.a.b[0]", json!(1)),
        ("event.payload.not", json!(null)),
    ]);
    fails(&[
        ("event.payload.n.x", "number has no field \"x\""),
        ("event.payload.list[3]", "outside of 3"),
        ("event.payload.list[-4]", "outside of 3"),
        ("event.payload.list.7", "outside of a list of 3"),
        ("event.payload.list['a']", "list cannot be indexed with string"),
        ("event.payload.list[0.5]", "not a whole number"),
        ("payload.n", "unknown name \"payload\", known are event"),
    ]);
}

#[test]
fn functions_on_numbers_and_kinds() {
    check(&[
        ("string(1.5) + string([1])", json!("1.5[1]")),
        ("number('2.5') + number(' 3 ')", json!(5.5)),
        ("int('42') + int(2.9) + int(true)", json!(45)),
        ("int(-2.9)", json!(-2)),
        ("bool('x')", json!(true)),
        (
            "[type_of(1), type_of('a'), type_of([]), type_of({}), type_of(null), type_of(true)]",
            json!(["number", "string", "list", "object", "null", "bool"]),
        ),
        ("[abs(-2), abs(-2.5)]", json!([2, 2.5])),
        ("[floor(2.7), ceil(2.1), round(2.5), round(3.5), round(2)]", json!([2, 3, 2, 4, 2])),
        ("round(2.567, 2)", json!(2.57)),
        ("[min(3, 1, 2), max([3, 1, 2]), min('b', 'a')]", json!([1, 3, "a"])),
        ("[sum([1, 2, 3]), sum([]), sum([0.5, 1])]", json!([6, 0, 1.5])),
    ]);
    fails(&[
        ("int('x')", "int(): the string is not a number"),
        ("number('inf')", "not a number"),
        ("int(1e300)", "too large"),
        ("min([])", "the list is empty"),
        ("min(1, 'a')", "cannot be compared"),
        ("sum(['a'])", "string cannot be added"),
        ("abs()", "abs() takes 1 arguments, not 0"),
        ("round(1, 2, 3)", "takes 1 to 2 arguments"),
        ("nope(1)", "unknown function nope()"),
    ]);
}

#[test]
fn functions_on_texts() {
    check(&[
        ("lower('ÄB') + upper('ß')", json!("äbSS")),
        ("trim('  a ')", json!("a")),
        ("split(' a  b ')", json!(["a", "b"])),
        ("split('a,,b', ',')", json!(["a", "", "b"])),
        ("join(['a', 1, true], '-')", json!("a-1-true")),
        ("replace('aXbX', 'X', 'yy')", json!("ayybyy")),
        ("[starts_with('abc', 'ab'), ends_with('abc', 'bc')]", json!([true, true])),
        ("[match('^h.*o$', event.payload.text), match('^l', event.payload.text)]", json!([true, false])),
        ("[contains('abc', 'b'), contains([1], 2), contains({'a': 1}, 'a')]", json!([true, false, true])),
        ("length('äö') + length([1]) + length({'a': 1})", json!(4)),
        ("[index_of('äbc', 'b'), index_of('abc', 'x'), count('abab', 'ab')]", json!([1, -1, 2])),
        ("[slice('hello', 1, 3), slice('hello', -3), reversed('abc')]", json!(["el", "llo", "cba"])),
    ]);
    fails(&[
        ("lower(1)", "argument 1 must be a string, not number"),
        ("match('(', 'a')", "not a regular expression"),
        ("match('a{1000}{1000}{1000}', 'a')", "too large"),
        ("match(join(range(4000), '|aaaa'), 'a')", "longer than 1024 bytes"),
        (
            "[match(join(range(250), 'a'), ''), match(join(range(250), 'b'), ''), match(join(range(250), 'c'), '')]",
            "too much data",
        ),
        ("match('[ab]{5000}c', join(range(9000), 'aaaa'))", "too much data"),
        ("split('a', '')", "separator is empty"),
        ("length(1)", "must be a string, a list or an object"),
    ]);
}

#[test]
fn functions_on_lists_and_objects() {
    check(&[
        ("keys({'b': 1, 'a': 2}) + values({'b': 1, 'a': 2})", json!(["b", "a", 1, 2])),
        ("sort([3, 1.5, 2])", json!([1.5, 2, 3])),
        ("sort(['b', 'a'])", json!(["a", "b"])),
        ("reversed([1, 2])", json!([2, 1])),
        ("unique([1, 1.0, 'a', 'a'])", json!([1, "a"])),
        ("flat([1, [2, [3]], []])", json!([1, 2, [3]])),
        ("zip([1, 2, 3], ['a', 'b'])", json!([[1, "a"], [2, "b"]])),
        ("range(3) + range(1, 3) + range(5, 0, -2)", json!([0, 1, 2, 1, 2, 5, 3, 1])),
        ("[slice([1, 2, 3], 1), slice([1, 2, 3], -9, 1), slice([1], 5, 2)]", json!([[2, 3], [1], []])),
        ("[index_of([1, 2], 2), count([1, 1, 2], 1), count([1, 2])]", json!([1, 2, 2])),
        ("merge({'a': 1, 'b': 1}, {'b': 2})", json!({"a": 1, "b": 2})),
        ("chunks([1, 2, 3], 2)", json!([[1, 2], [3]])),
    ]);
    fails(&[
        ("sort([1, 'a'])", "only numbers or only strings"),
        ("range(1, 2, 0)", "the step is 0"),
        ("chunks([1], 0)", "above 0"),
        ("keys([1])", "must be an object"),
        ("zip([1], 2)", "argument 2 must be a list"),
    ]);
}

#[test]
fn mistakes_are_named_with_their_place() {
    fails(&[
        ("", "expected a value, found the end (at character 1)"),
        ("1 +", "expected a value, found the end (at character 4)"),
        ("1 2", "expected an operator or the end, found 2 (at character 3)"),
        ("(1", "expected \")\""),
        ("[1 2]", "expected \"]\""),
        ("'abc", "not closed"),
        ("'a\\q'", "unknown escape"),
        ("a ? b", "unexpected character '?'"),
        ("99999999999999999999", "not a number that fits"),
        ("1e", "not a number that fits"),
        ("event.", "expected a field name"),
        ("and", "expected a value"),
        ("1 not 2", "expected `in`"),
        ("a = 1", "unexpected character '='"),
    ]);
}

#[test]
fn nothing_can_use_unlimited_stack_time_or_memory() {
    let nested = format!("{}1{}", "(".repeat(5000), ")".repeat(5000));
    let negated = format!("{}1", "not ".repeat(3000));
    let minus = format!("{}1", "-".repeat(5000));
    let chained = format!("1{}", "+1".repeat(5000));
    let dotted = format!("event{}", ".a".repeat(5000));
    let long = " ".repeat(LONGEST_TEXT + 1);
    fails(&[
        (&nested, "nested deeper"),
        (&negated, "nested deeper"),
        (&minus, "nested deeper"),
        (&chained, "more than 128 operators"),
        (&dotted, "more than 128 operators"),
        (&long, "longer than"),
        ("range(1000000000000)", "too much data"),
        ("length(range(4000000)) + length(range(4000000))", "too much data"),
        ("join(range(2000000), 'xxxxxxxxxx')", "too much data"),
        ("unique(range(100000))", "too much data"),
    ]);
    let doubled = format!("{}event.payload.list{}", "merge({'a': [".repeat(10), "]})".repeat(10));
    assert!(value(&doubled).is_ok());
}

#[test]
fn the_deepest_allowed_tree_fits_the_stack_of_a_small_thread() {
    let inner = format!("1{}", "+1".repeat(125));
    let text = format!("{}{inner}{}", "[".repeat(30), "]".repeat(30));
    let thread = std::thread::Builder::new().stack_size(1024 * 1024);
    thread.spawn(move || assert!(value(&text).is_ok())).unwrap().join().unwrap();
}

proptest::proptest! {
    #[test]
    fn no_text_panics(text in r#"([a-z(){}\[\].,+*/%<>=!&|'" 0-9-]|event\.payload\.(n|f|text|list)|not |in |and |or )*"#) {
        if let Ok(expression) = Expression::parse(&text) {
            let _value_or_error = expression.evaluate(&variables());
        }
    }

    #[test]
    fn no_call_panics(name in 0..functions::NAMES.len(), arguments in proptest::collection::vec(
        r"(event\.payload\.(n|f|big|text|empty|list|tags|nested|nothing)|-?[0-9]{1,19}|-?[0-9]\.5e[0-9]{1,2}|'[a-zü(*]{0,3}')", 0..4,
    )) {
        let text = format!("{}({})", functions::NAMES[name], arguments.join(", "));
        if let Ok(expression) = Expression::parse(&text) {
            let _value_or_error = expression.evaluate(&variables());
        }
    }
}
