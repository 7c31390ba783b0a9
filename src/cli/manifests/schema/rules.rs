//! Evaluates the CEL rules of a schema.

use std::{collections::HashMap, sync::Arc};

use cel::{Context, Env, Program, Value};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, ValidationRule,
};

use super::{
    cel as library,
    finding::{Finding, Location},
    hints,
};
use crate::api::Remedy;
use crate::cli::manifests::{
    code::Code,
    path::FieldPath,
    text::Text,
    tree::{Data, Node},
};

/// Why a rule cannot be evaluated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RuleError(String);

/// Compiled rules, cached by their text.
pub struct Rules {
    env: Arc<Env>,
    scope: Context<'static, 'static>,
    programs: HashMap<String, Result<Program, RuleError>>,
}

impl Rules {
    pub fn new() -> Self {
        let env = Arc::new(library::language());
        Self {
            scope: library::scope(Arc::clone(&env)),
            env,
            programs: HashMap::new(),
        }
    }

    /// Checks the rules of the value's own schema. If the value is not `sound`, something in it is missing or
    /// unreadable: then a rule is violated only if it is whatever is written there instead.
    pub fn check(
        &mut self,
        schema: &JSONSchemaProps,
        node: &Node,
        path: &FieldPath,
        sound: bool,
        findings: &mut Vec<Finding>,
    ) {
        let Some(rules) = &schema.x_kubernetes_validations else {
            return;
        };
        let readings = if sound { 1 } else { library::READINGS };
        let values = (0..readings).map(|reading| library::value(schema, node, reading));
        let values: Vec<Value> = values.collect();
        for rule in rules {
            let (text, location) = match self.result(rule, &values, sound) {
                Ok(true) => continue,
                Ok(false) => {
                    let message = self.message(rule, &values[0]);
                    let (message, location) = self.naming_the_first(rule, schema, node, message);
                    (text(rule, schema, node, &message, &location), location)
                }
                // A rule that fails counts as violated, as in the API server.
                Err(error) => {
                    let message = format!("the rule '{}' cannot be evaluated: {error}", rule.rule);
                    (Text::new(message), Location::Value)
                }
            };
            let below = FieldPath::parse(rule.field_path.as_deref().unwrap_or_default());
            let code = Remedy::of(rule).map_or(Code::InvalidSpec, |it| Code::Rule(it.code));
            findings.push(Finding {
                location,
                ..Finding::error(code, path.join(&below), text)
            });
        }
    }

    /// Whether the rule holds for any of the values. An error if it cannot be evaluated for a sound one.
    fn result(
        &mut self,
        rule: &ValidationRule,
        values: &[Value],
        sound: bool,
    ) -> Result<bool, RuleError> {
        for value in values {
            match self.evaluate(&rule.rule, value) {
                Ok(Some(Value::Bool(true)) | None) => return Ok(true),
                Ok(Some(_)) => {}
                Err(error) if sound => return Err(error),
                // It depends on the value that cannot be read.
                Err(_) => return Ok(true),
            }
        }
        Ok(false)
    }

    /// The result of an expression for a value. `None` for a transition rule, as there is no old value.
    fn evaluate(&mut self, expression: &str, value: &Value) -> Result<Option<Value>, RuleError> {
        if !self.programs.contains_key(expression) {
            let program = self
                .env
                .compile(expression)
                .map_err(|error| RuleError(error.to_string()));
            // With its error, so that a rule that does not compile is not compiled again for each value.
            self.programs.insert(expression.to_owned(), program);
        }
        let program = match self.programs.get(expression) {
            Some(Ok(program)) => program,
            Some(Err(error)) => return Err(error.clone()),
            None => return Ok(None),
        };
        if program.references().has_variable("oldSelf") {
            return Ok(None);
        }
        // The functions are shared, `self` belongs to this evaluation.
        let mut scope = self.scope.new_inner_scope();
        scope.add_variable_from_value("self", value.clone());
        let given = program.execute(&scope);
        let given = given.map_err(|error| RuleError(error.to_string()))?;
        Ok(Some(given))
    }

    /// A rule on the keys of a map names any key that violates it, as a CEL map has no order. Names the
    /// first one in the file instead.
    fn naming_the_first(
        &mut self,
        rule: &ValidationRule,
        schema: &JSONSchemaProps,
        node: &Node,
        message: String,
    ) -> (String, Location) {
        let entries = node.entries();
        let Some(words) = entries.iter().find_map(|entry| {
            message
                .strip_prefix('\'')?
                .strip_prefix(&entry.key)?
                .strip_prefix("' ")
        }) else {
            return (message, Location::Value);
        };
        // The shortest start of the map that violates the rule ends with the key to name.
        for (i, entry) in entries.iter().enumerate() {
            let start = Node::new(node.span, Data::Map(entries[..=i].to_vec()));
            let value = library::value(schema, &start, 0);
            if let Ok(Some(Value::Bool(false))) = self.evaluate(&rule.rule, &value) {
                let key = &entry.key;
                return (format!("'{key}' {words}"), Location::Key(key.clone()));
            }
        }
        (message, Location::Value)
    }

    /// The message of the rule: from `messageExpression` if it gives one, else the fixed one, as in the API
    /// server.
    fn message(&mut self, rule: &ValidationRule, value: &Value) -> String {
        if let Some(expression) = &rule.message_expression
            && let Ok(Some(Value::String(message))) = self.evaluate(expression, value)
            // In these cases the API server uses the fixed message, too.
            && !message.trim().is_empty()
            && !message.contains('\n')
        {
            return message.to_string();
        }
        let fixed = rule.message.clone();
        fixed.unwrap_or_else(|| format!("failed rule: {}", rule.rule))
    }
}

/// What a violation says, with what to write instead.
fn text(
    rule: &ValidationRule,
    schema: &JSONSchemaProps,
    node: &Node,
    message: &str,
    location: &Location,
) -> Text {
    let Some(Remedy { code, help }) = Remedy::of(rule) else {
        return Text::new(message);
    };
    // The message as kubectl prints it ends with the remedy.
    let problem = message.strip_suffix(help).unwrap_or(message);
    let problem = problem.strip_suffix(": ").unwrap_or(problem);
    let value = match location {
        Location::Key(key) => Some(key.as_str()),
        _ => node.text(),
    };
    let better = value.and_then(|value| hints::better(schema, code, value));
    Text::new(problem).help(better.unwrap_or_else(|| help.to_owned()))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
        JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
    };

    use super::*;
    use crate::api::schema::definitions;

    /// All expressions of a schema.
    fn expressions(schema: &JSONSchemaProps, found: &mut Vec<String>) {
        for rule in schema.x_kubernetes_validations.iter().flatten() {
            found.push(rule.rule.clone());
            found.extend(rule.message_expression.clone());
        }
        for property in schema.properties.iter().flat_map(|all| all.values()) {
            expressions(property, found);
        }
        if let Some(JSONSchemaPropsOrArray::Schema(items)) = &schema.items {
            expressions(items, found);
        }
        if let Some(JSONSchemaPropsOrBool::Schema(values)) = &schema.additional_properties {
            expressions(values, found);
        }
    }

    /// The functions of `super::library`, and those of CEL itself.
    const FUNCTIONS: [&str; 24] = [
        "cidr",
        "contains",
        "containsCIDR",
        "containsIP",
        "duration",
        "endsWith",
        "family",
        "getHost",
        "getScheme",
        "ip",
        "isCIDR",
        "isIP",
        "isURL",
        "lowerAscii",
        "masked",
        "matches",
        "prefixLength",
        "replace",
        "size",
        "split",
        "startsWith",
        "string",
        "type",
        "url",
    ];

    #[test]
    fn every_rule_compiles_and_calls_only_known_functions() {
        let mut all = Vec::new();
        for definition in definitions() {
            for version in &definition.spec.versions {
                let schema = version.schema.as_ref();
                let schema = schema.and_then(|it| it.open_api_v3_schema.as_ref());
                expressions(schema.unwrap(), &mut all);
            }
        }
        assert!(all.len() > 50);
        let rules = Rules::new();
        for expression in all {
            let program = rules.env.compile(&expression).unwrap();
            let references = program.references();
            let functions = references.functions();
            let named = |name: &&&str| name.starts_with(|c: char| c.is_ascii_alphabetic());
            let missing = functions
                .iter()
                .filter(named)
                .find(|name| !FUNCTIONS.contains(name));
            assert_eq!(missing, None, "{expression}");
        }
    }
}
