{{- define "stoker.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "stoker.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "stoker.labels" -}}
{{ include "stoker.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "stoker.serviceAccount" -}}
{{ .Values.serviceAccount.name | default (include "stoker.name" .) }}
{{- end }}

{{- define "stoker.image" -}}
{{- with .Values.image }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{ with .digest }}@{{ . }}{{ end }}{{ end }}
{{- end }}

{{- define "stoker.redisSecret" -}}
{{ .Values.redis.passwordSecret | default (printf "%s-redis" (include "stoker.name" .)) }}
{{- end }}

{{- define "stoker.redisUrl" -}}
{{- if .Values.redis.enabled }}redis://{{ include "stoker.name" . }}-redis:6379/0{{ else }}{{ required "redis.url is needed with redis.enabled: false" .Values.redis.url }}{{ end }}
{{- end }}

{{/* The addresses and ports of the API servers: those in `networkPolicy.apiServer`, otherwise read from the cluster. */}}
{{- define "stoker.apiServer" -}}
{{- $cidrs := .Values.networkPolicy.apiServer.cidrs }}
{{- $ports := .Values.networkPolicy.apiServer.ports }}
{{- if not $cidrs }}
{{- range $subset := get (lookup "v1" "Endpoints" "default" "kubernetes" | default dict) "subsets" | default list }}
{{- range $subset.addresses }}
{{- $cidrs = append $cidrs (printf "%s/%s" .ip (ternary "128" "32" (contains ":" .ip))) }}
{{- end }}
{{- range $subset.ports }}{{ $ports = append $ports (int .port) }}{{ end }}
{{- end }}
{{- end }}
{{- dict "cidrs" $cidrs "ports" ($ports | uniq) | toYaml }}
{{- end }}

{{/* A setting of the bot by its name (`list $ "platform.namespace"`): the value in `config`, otherwise the bot's default. */}}
{{- define "stoker.setting" -}}
{{- $root := index . 0 }}
{{- $name := index . 1 }}
{{- $value := $root.Values.config | default dict }}
{{- $isSet := true }}
{{- range splitList "." $name }}
{{- if and (kindIs "map" $value) (hasKey ($value | default dict) .) }}
{{- $value = get $value . }}
{{- else }}
{{- $isSet = false }}
{{- $value = dict }}
{{- end }}
{{- end }}
{{- if not $isSet }}
{{- $value = get ($root.Files.Get "files/rights.yaml" | fromYaml).defaults $name }}
{{- end }}
{{- $value | default "" }}
{{- end }}
