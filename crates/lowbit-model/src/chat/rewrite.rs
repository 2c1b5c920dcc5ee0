//! Puts the guards of `guard` into a parsed template.

use super::guard::{Result, refuse};
use minijinja::machinery::Span;
use minijinja::machinery::ast::{self, BinOpKind, CallArg, Expr, Spanned, Stmt};

/// Deepest nesting of source.
const MAX_NESTING: usize = 150;

/// Names of the guards; no template can spell them.
pub(super) const WEIGH: &str = "weigh an operand";
pub(super) const EMIT: &str = "weigh an output";
pub(super) const ITEM: &str = "weigh and take";
pub(super) const PLAIN: &str = "weigh and look through";
pub(super) const TIMES: &str = "multiply";
pub(super) const CONCAT: &str = "concatenate";
pub(super) const REMAINDER: &str = "remainder";
pub(super) const SLICE: &str = "slice";

/// The template with guards around operands and outputs.
///
/// # Errors
/// When it is nested too deep or refers to another template.
pub(super) fn template<'a>(parsed: &Stmt<'a>) -> Result<Stmt<'a>> {
    Rewrite { depth: 0 }.statement(parsed)
}

/// Walks a template and builds it anew.
struct Rewrite {
    depth: usize,
}

fn spanned<T>(node: T, span: Span) -> Spanned<T> {
    Spanned::new(node, span)
}

fn guard<'a>(name: &'static str, args: Vec<Expr<'a>>, span: Span) -> Expr<'a> {
    let expr = Expr::Var(spanned(ast::Var { id: name }, span));
    let args = args.into_iter().map(CallArg::Pos).collect();
    Expr::Call(spanned(ast::Call { expr, args }, span))
}

impl Rewrite {
    /// Runs one level deeper.
    fn within<T>(&mut self, f: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.depth == MAX_NESTING {
            return Err(refuse(format!("size: the source is nested deeper than {MAX_NESTING}")));
        }
        self.depth += 1;
        let result = f(self);
        self.depth -= 1;
        result
    }

    fn body<'a>(&mut self, body: &[Stmt<'a>]) -> Result<Vec<Stmt<'a>>> {
        body.iter().map(|s| self.within(|w| w.statement(s))).collect()
    }

    /// A statement without a body of others.
    fn statement<'a>(&mut self, statement: &Stmt<'a>) -> Result<Stmt<'a>> {
        Ok(match statement {
            Stmt::EmitExpr(s) => {
                let expr = guard(EMIT, vec![self.expression(&s.expr)?], s.span());
                Stmt::EmitExpr(spanned(ast::EmitExpr { expr }, s.span()))
            }
            Stmt::EmitRaw(s) => {
                let text = Expr::Const(spanned(ast::Const { value: s.raw.into() }, s.span()));
                Stmt::EmitExpr(spanned(ast::EmitExpr { expr: guard(EMIT, vec![text], s.span()) }, s.span()))
            }
            Stmt::Set(s) => {
                let (target, expr) = (self.target(&s.target)?, self.weighed(&s.expr)?);
                Stmt::Set(spanned(ast::Set { target, expr }, s.span()))
            }
            Stmt::Import(_) | Stmt::FromImport(_) | Stmt::Extends(_) | Stmt::Include(_) => {
                return Err(refuse("refers to another template; there is none"));
            }
            Stmt::Continue(s) => Stmt::Continue(spanned(ast::Continue, s.span())),
            Stmt::Break(s) => Stmt::Break(spanned(ast::Break, s.span())),
            Stmt::Do(s) => Stmt::Do(spanned(ast::Do { call: spanned(self.call(&s.call)?, s.call.span()) }, s.span())),
            other => self.block(other)?,
        })
    }

    /// A statement with a body.
    fn block<'a>(&mut self, statement: &Stmt<'a>) -> Result<Stmt<'a>> {
        Ok(match statement {
            Stmt::Template(s) => Stmt::Template(spanned(ast::Template { children: self.body(&s.children)? }, s.span())),
            Stmt::ForLoop(s) => {
                let node = ast::ForLoop {
                    target: self.target(&s.target)?,
                    iter: self.weighed(&s.iter)?,
                    filter_expr: self.maybe(s.filter_expr.as_ref())?,
                    recursive: s.recursive,
                    body: self.body(&s.body)?,
                    else_body: self.body(&s.else_body)?,
                };
                Stmt::ForLoop(spanned(node, s.span()))
            }
            Stmt::IfCond(s) => {
                let expr = self.expression(&s.expr)?;
                let (true_body, false_body) = (self.body(&s.true_body)?, self.body(&s.false_body)?);
                Stmt::IfCond(spanned(ast::IfCond { expr, true_body, false_body }, s.span()))
            }
            Stmt::WithBlock(s) => {
                let assign = |(target, expr): &(Expr<'a>, Expr<'a>)| Ok((self.target(target)?, self.weighed(expr)?));
                let assignments = s.assignments.iter().map(assign).collect::<Result<_>>()?;
                Stmt::WithBlock(spanned(ast::WithBlock { assignments, body: self.body(&s.body)? }, s.span()))
            }
            Stmt::SetBlock(s) => {
                let (target, filter) = (self.target(&s.target)?, self.maybe(s.filter.as_ref())?);
                Stmt::SetBlock(spanned(ast::SetBlock { target, filter, body: self.body(&s.body)? }, s.span()))
            }
            // No other template fills it.
            Stmt::Block(s) => {
                let node = ast::WithBlock { assignments: Vec::new(), body: self.body(&s.body)? };
                Stmt::WithBlock(spanned(node, s.span()))
            }
            // Chats are text: nothing is escaped.
            Stmt::AutoEscape(s) => {
                let node = ast::WithBlock { assignments: Vec::new(), body: self.body(&s.body)? };
                Stmt::WithBlock(spanned(node, s.span()))
            }
            Stmt::FilterBlock(s) => {
                let filter = self.expression(&s.filter)?;
                Stmt::FilterBlock(spanned(ast::FilterBlock { filter, body: self.body(&s.body)? }, s.span()))
            }
            Stmt::Macro(s) => Stmt::Macro(spanned(self.definition(s)?, s.span())),
            Stmt::CallBlock(s) => {
                let call = spanned(self.call(&s.call)?, s.call.span());
                let macro_decl = spanned(self.definition(&s.macro_decl)?, s.macro_decl.span());
                Stmt::CallBlock(spanned(ast::CallBlock { call, macro_decl }, s.span()))
            }
            _ => return Err(refuse("has a statement that chats do not need")),
        })
    }

    fn definition<'a>(&mut self, s: &ast::Macro<'a>) -> Result<ast::Macro<'a>> {
        Ok(ast::Macro {
            name: s.name,
            args: s.args.iter().map(|e| self.target(e)).collect::<Result<_>>()?,
            defaults: s.defaults.iter().map(|e| self.expression(e)).collect::<Result<_>>()?,
            body: self.body(&s.body)?,
        })
    }

    /// An operand behind its guard.
    fn weighed<'a>(&mut self, expr: &Expr<'a>) -> Result<Expr<'a>> {
        let span = expr.span();
        Ok(guard(WEIGH, vec![self.expression(expr)?], span))
    }

    /// An operand that is compared, behind its guard.
    fn compared<'a>(&mut self, expr: &Expr<'a>) -> Result<Expr<'a>> {
        let span = expr.span();
        Ok(guard(PLAIN, vec![self.expression(expr)?], span))
    }

    /// What is assigned to: a name, an attribute, or a list of these.
    fn target<'a>(&mut self, expr: &Expr<'a>) -> Result<Expr<'a>> {
        let each = |list: &[Expr<'a>], w: &mut Self| list.iter().map(|e| w.target(e)).collect::<Result<_>>();
        self.within(|w| {
            Ok(match expr {
                Expr::List(e) => Expr::List(spanned(ast::List { items: each(&e.items, w)? }, e.span())),
                Expr::Tuple(e) => Expr::Tuple(spanned(ast::Tuple { items: each(&e.items, w)? }, e.span())),
                other => w.node(other)?,
            })
        })
    }

    fn maybe<'a>(&mut self, expr: Option<&Expr<'a>>) -> Result<Option<Expr<'a>>> {
        expr.map(|e| self.expression(e)).transpose()
    }

    fn all<'a>(&mut self, list: &[Expr<'a>]) -> Result<Vec<Expr<'a>>> {
        list.iter().map(|e| self.weighed(e)).collect()
    }

    fn arguments<'a>(&mut self, list: &[CallArg<'a>]) -> Result<Vec<CallArg<'a>>> {
        let one = |arg: &CallArg<'a>| {
            Ok(match arg {
                CallArg::Pos(e) => CallArg::Pos(self.weighed(e)?),
                CallArg::Kwarg(name, e) => CallArg::Kwarg(name, self.weighed(e)?),
                CallArg::PosSplat(e) => CallArg::PosSplat(self.weighed(e)?),
                CallArg::KwargSplat(e) => CallArg::KwargSplat(self.weighed(e)?),
            })
        };
        list.iter().map(one).collect()
    }

    fn call<'a>(&mut self, s: &ast::Call<'a>) -> Result<ast::Call<'a>> {
        // A name and an attribute that are called stay what they are: a function and a method.
        let expr = match &s.expr {
            Expr::GetAttr(a) => {
                Expr::GetAttr(spanned(ast::GetAttr { expr: self.weighed(&a.expr)?, name: a.name }, a.span()))
            }
            other => self.expression(other)?,
        };
        Ok(ast::Call { expr, args: self.arguments(&s.args)? })
    }

    fn expression<'a>(&mut self, expr: &Expr<'a>) -> Result<Expr<'a>> {
        self.within(|w| w.node(expr))
    }

    fn node<'a>(&mut self, expr: &Expr<'a>) -> Result<Expr<'a>> {
        Ok(match expr {
            Expr::Var(e) => Expr::Var(spanned(ast::Var { id: e.id }, e.span())),
            Expr::Const(e) => Expr::Const(spanned(ast::Const { value: e.value.clone() }, e.span())),
            Expr::Slice(e) => {
                let mut args = vec![self.weighed(&e.expr)?];
                for bound in [&e.start, &e.stop, &e.step] {
                    let none = || Expr::Const(spanned(ast::Const { value: ().into() }, e.span()));
                    args.push(self.maybe(bound.as_ref())?.unwrap_or_else(none));
                }
                guard(SLICE, args, e.span())
            }
            Expr::UnaryOp(_) | Expr::BinOp(_) | Expr::Compare(_) => self.operator(expr)?,
            Expr::IfExpr(e) => {
                let (test_expr, true_expr) = (self.expression(&e.test_expr)?, self.expression(&e.true_expr)?);
                let false_expr = self.maybe(e.false_expr.as_ref())?;
                Expr::IfExpr(spanned(ast::IfExpr { test_expr, true_expr, false_expr }, e.span()))
            }
            Expr::Filter(e) => {
                let expr = e.expr.as_ref().map(|e| self.weighed(e)).transpose()?;
                Expr::Filter(spanned(ast::Filter { name: e.name, expr, args: self.arguments(&e.args)? }, e.span()))
            }
            Expr::Test(e) => {
                let (expr, args) = (self.weighed(&e.expr)?, self.arguments(&e.args)?);
                Expr::Test(spanned(ast::Test { name: e.name, expr, args }, e.span()))
            }
            Expr::GetAttr(e) => {
                Expr::GetAttr(spanned(ast::GetAttr { expr: self.expression(&e.expr)?, name: e.name }, e.span()))
            }
            Expr::GetItem(e) => {
                guard(ITEM, vec![self.expression(&e.expr)?, self.weighed(&e.subscript_expr)?], e.span())
            }
            Expr::Call(e) => Expr::Call(spanned(self.call(e)?, e.span())),
            Expr::List(e) => Expr::List(spanned(ast::List { items: self.all(&e.items)? }, e.span())),
            Expr::Tuple(e) => Expr::Tuple(spanned(ast::Tuple { items: self.all(&e.items)? }, e.span())),
            Expr::Map(e) => {
                let (keys, values) = (self.all(&e.keys)?, self.all(&e.values)?);
                Expr::Map(spanned(ast::Map { keys, values }, e.span()))
            }
        })
    }

    fn operator<'a>(&mut self, expr: &Expr<'a>) -> Result<Expr<'a>> {
        Ok(match expr {
            Expr::UnaryOp(e) => {
                let not = matches!(e.op, ast::UnaryOpKind::Not);
                let op = if not { ast::UnaryOpKind::Not } else { ast::UnaryOpKind::Neg };
                Expr::UnaryOp(spanned(ast::UnaryOp { op, expr: self.weighed(&e.expr)? }, e.span()))
            }
            Expr::BinOp(e) => match e.op {
                BinOpKind::ScAnd | BinOpKind::ScOr => {
                    let (left, right) = (self.expression(&e.left)?, self.expression(&e.right)?);
                    Expr::BinOp(spanned(ast::BinOp { op: e.op, left, right }, e.span()))
                }
                BinOpKind::Mul => guard(TIMES, vec![self.weighed(&e.left)?, self.weighed(&e.right)?], e.span()),
                BinOpKind::Rem => guard(REMAINDER, vec![self.weighed(&e.left)?, self.weighed(&e.right)?], e.span()),
                BinOpKind::Concat => guard(CONCAT, vec![self.weighed(&e.left)?, self.weighed(&e.right)?], e.span()),
                BinOpKind::Eq
                | BinOpKind::Ne
                | BinOpKind::Lt
                | BinOpKind::Lte
                | BinOpKind::Gt
                | BinOpKind::Gte
                | BinOpKind::In => {
                    let (left, right) = (self.compared(&e.left)?, self.compared(&e.right)?);
                    Expr::BinOp(spanned(ast::BinOp { op: e.op, left, right }, e.span()))
                }
                op => {
                    let (left, right) = (self.weighed(&e.left)?, self.weighed(&e.right)?);
                    Expr::BinOp(spanned(ast::BinOp { op, left, right }, e.span()))
                }
            },
            Expr::Compare(e) => {
                let expr = self.compared(&e.expr)?;
                let one = |c: &ast::CompareOp<'a>| Ok(ast::CompareOp { op: c.op, expr: self.compared(&c.expr)? });
                let ops = e.ops.iter().map(one).collect::<Result<_>>()?;
                Expr::Compare(spanned(ast::Compare { expr, ops }, e.span()))
            }
            other => self.node(other)?,
        })
    }
}
