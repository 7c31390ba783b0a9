use super::expressions::Expressions;
use crate::api::AllowedPolicies;

fn expressions(rules: Option<&str>) -> Expressions {
    let rules: Option<Vec<AllowedPolicies>> =
        rules.map(|rules| serde_yaml::from_str(rules).unwrap());
    Expressions::of("default", rules.as_deref(), "tsdp-system")
}

#[test]
fn without_rules_only_the_controllers_own_namespace_is_allowed() {
    let found = expressions(None);
    assert_eq!(
        found.variables,
        [(
            "rule0".to_owned(),
            r#"request.namespace in ["tsdp-system"]"#.to_owned()
        )]
    );
    assert_eq!(found.validations.len(), 1);
}

#[test]
fn rules_without_bounds_check_the_namespace_only() {
    let found = expressions(Some("[{}]"));
    assert_eq!(found.variables, [("rule0".to_owned(), "true".to_owned())]);
    let checks: Vec<_> = found.validations.iter().map(|it| &it.expression).collect();
    assert_eq!(checks, ["variables.rule0"]);
}

#[test]
fn an_empty_list_allows_nothing() {
    let found = expressions(Some("[]"));
    assert_eq!(found.validations[0].expression, "false");
}
