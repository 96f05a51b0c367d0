-- name: list_relations
-- Tables and views; a partitioned table stands for its partitions, which are made as time goes on.
select c.oid, c.relname as name, c.relkind = 'v' as is_view, c.relrowsecurity as has_policies,
       coalesce(' with (' || array_to_string(c.reloptions, ', ') || ')', '') as options,
       coalesce(' partition by ' || pg_get_partkeydef(c.oid), '') as partitions,
       case when c.relkind = 'v' then pg_get_viewdef(c.oid, true) end as query
from pg_class c
where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p', 'v') and not c.relispartition
  and not exists (select from pg_depend d where d.objid = c.oid and d.deptype = 'e');

-- name: list_columns
-- In the order of the table.
select a.attrelid as relation, a.attname as name, format_type(a.atttypid, a.atttypmod) as type, a.attnotnull as required,
       a.attidentity <> '' as is_identity, a.attgenerated <> '' as is_generated,
       pg_get_expr(d.adbin, d.adrelid) as expression, a.attstorage = 'e' and t.typstorage <> 'e' as is_external
from pg_attribute a
join pg_type t on t.oid = a.atttypid
left join pg_attrdef d on (d.adrelid, d.adnum) = (a.attrelid, a.attnum)
where a.attnum > 0 and not a.attisdropped
order by a.attrelid, a.attnum;

-- name: list_constraints
-- Keys first, then references, then conditions. `not null` stands with its column.
select conrelid as relation, conname as name, pg_get_constraintdef(oid, true) as text
from pg_constraint
where contype in ('p', 'u', 'x', 'f', 'c')
order by conrelid, array_position('{p,u,x,f,c}'::"char"[], contype), conname;

-- name: list_indexes
-- Those that no constraint makes.
select i.indrelid as relation, c.relname as name, pg_get_indexdef(i.indexrelid) as text
from pg_index i
join pg_class c on c.oid = i.indexrelid
where not exists (select from pg_constraint k where k.conindid = i.indexrelid and k.contype in ('p', 'u', 'x'))
order by i.indrelid, c.relname;

-- name: list_triggers
-- Without those that PostgreSQL makes for references.
select tgrelid as relation, tgname as name, pg_get_triggerdef(oid, true) as text
from pg_trigger
where not tgisinternal
order by tgrelid, tgname;

-- name: list_policies
-- Which rows a role may see or write.
select p.polrelid as relation, p.polname as name,
       format('create policy %I on %I for %s%s%s%s', p.polname, c.relname,
              case p.polcmd when 'r' then 'select' when 'a' then 'insert' when 'w' then 'update' when 'd' then 'delete'
                  else 'all' end,
              (select ' to ' || string_agg(r.rolname, ', ' order by r.rolname) from pg_roles r where r.oid = any(p.polroles)),
              ' using (' || pg_get_expr(p.polqual, p.polrelid, true) || ')',
              ' with check (' || pg_get_expr(p.polwithcheck, p.polrelid, true) || ')') as text
from pg_policy p
join pg_class c on c.oid = p.polrelid
order by p.polrelid, p.polname;

-- name: list_grants
-- What each role may do with a table or view, or with some of its columns.
with right_ as (
    select c.oid as relation, c.relname, g.grantee, g.privilege_type as privilege, null::name as column_name
    from pg_class c, aclexplode(c.relacl) g
    where g.grantee <> c.relowner
    union all
    select c.oid, c.relname, g.grantee, g.privilege_type, a.attname
    from pg_attribute a join pg_class c on c.oid = a.attrelid, aclexplode(a.attacl) g
    where g.grantee <> c.relowner
), privilege as (
    select relation, relname, grantee, lower(privilege)
           || coalesce(' (' || string_agg(column_name, ', ' order by column_name) || ')', '') as text
    from right_
    group by relation, relname, grantee, privilege, column_name is null
), of_role as (
    select p.relation, p.relname, r.rolname, string_agg(p.text, ', ' order by p.text) as privileges
    from privilege p
    join pg_roles r on r.oid = p.grantee
    group by p.relation, p.relname, r.rolname
)
select relation, '' as name,
       format('grant %s on %I to %s', privileges, relname, string_agg(rolname, ', ' order by rolname)) as text
from of_role
group by relation, relname, privileges
order by relation, min(rolname);

-- name: list_functions
-- With the roles that may call them; none are named where everybody may.
select p.oid, p.proname as name, p.proargnames[1] as first_argument, pg_get_functiondef(p.oid) as text, p.proacl is null as is_open,
       array(select r.rolname from aclexplode(p.proacl) g join pg_roles r on r.oid = g.grantee
             where g.grantee <> p.proowner order by r.rolname) as callers
from pg_proc p
where p.pronamespace = 'public'::regnamespace
  and not exists (select from pg_depend d where d.objid = p.oid and d.deptype = 'e');
