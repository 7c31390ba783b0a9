//! The CEL rules in a schema.

use std::{collections::HashMap, sync::Arc};

use cel::{Context, Env, Program, Value};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, ValidationRule,
};

use super::{Finding, Spot, cel as library};
use crate::cli::manifests::{
    fault::Code,
    path::FieldPath,
    tree::{Data, Node},
};

/// The rules that were met so far, compiled.
pub struct Rules {
    env: Arc<Env>,
    scope: Context<'static, 'static>,
    programs: HashMap<String, Result<Program, String>>,
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

    /// Checks the rules that stand at a value itself.
    pub fn check(
        &mut self,
        schema: &JSONSchemaProps,
        node: &Node,
        path: &FieldPath,
        findings: &mut Vec<Finding>,
    ) {
        let Some(rules) = &schema.x_kubernetes_validations else {
            return;
        };
        let value = library::value(schema, node);
        for rule in rules {
            let (message, spot) = match self.evaluate(&rule.rule, &value) {
                Ok(Some(Value::Bool(true)) | None) => continue,
                Ok(Some(_)) => {
                    let message = self.message(rule, &value);
                    self.naming_the_first(rule, schema, node, message)
                }
                Err(error) => {
                    let message = format!("the rule '{}' cannot be evaluated: {error}", rule.rule);
                    (message, Spot::Value)
                }
            };
            let below = FieldPath::parse(rule.field_path.as_deref().unwrap_or_default());
            findings.push(Finding {
                spot,
                ..Finding::error(Code::Rule, path.join(&below), message)
            });
        }
    }

    /// What an expression gives for a value; `None` where it compares with an older one, as there is
    /// none.
    fn evaluate(&mut self, expression: &str, value: &Value) -> Result<Option<Value>, String> {
        if !self.programs.contains_key(expression) {
            let program = self
                .env
                .compile(expression)
                .map_err(|error| error.to_string());
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
        let mut scope = self.scope.new_inner_scope();
        scope.add_variable_from_value("self", value.clone());
        let given = program.execute(&scope).map_err(|error| error.to_string())?;
        Ok(Some(given))
    }

    /// A rule on the keys of a map names any one that breaks it, as a map has no order. Here it is the
    /// first one in the file.
    fn naming_the_first(
        &mut self,
        rule: &ValidationRule,
        schema: &JSONSchemaProps,
        node: &Node,
        message: String,
    ) -> (String, Spot) {
        let entries = node.entries();
        let named = |key: &str| {
            message
                .strip_prefix('\'')?
                .strip_prefix(key)?
                .strip_prefix("' ")
        };
        let Some(words) = entries.iter().find_map(|entry| named(&entry.key)) else {
            return (message, Spot::Value);
        };
        let breaks = |count: &usize| {
            let data = Data::Map(entries[..*count].to_vec());
            let span = node.span;
            let some = library::value(schema, &Node { span, data });
            matches!(
                self.evaluate(&rule.rule, &some),
                Ok(Some(Value::Bool(false)))
            )
        };
        match (1..=entries.len())
            .find(breaks)
            .map(|count| &entries[count - 1].key)
        {
            Some(key) => (format!("'{key}' {words}"), Spot::Key(key.clone())),
            None => (message.clone(), Spot::Value),
        }
    }

    /// The message that names the value, else the fixed one, as the API server chooses.
    fn message(&mut self, rule: &ValidationRule, value: &Value) -> String {
        if let Some(expression) = &rule.message_expression
            && let Ok(Some(Value::String(message))) = self.evaluate(expression, value)
            && !message.trim().is_empty()
            && !message.contains('\n')
        {
            return message.to_string();
        }
        let fixed = rule.message.clone();
        fixed.unwrap_or_else(|| format!("failed rule: {}", rule.rule))
    }
}
