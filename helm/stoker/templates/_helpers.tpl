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

{{- define "stoker.redisUrl" -}}
{{- if .Values.redis.enabled }}redis://{{ include "stoker.name" . }}-redis:6379/0{{ else }}{{ required "redis.url is needed with redis.enabled: false" .Values.redis.url }}{{ end }}
{{- end }}

{{/* The bot's own defaults for what the rights follow from, under what `config` says. */}}
{{- define "stoker.layout" -}}
{{- $said := .Values.config | default dict }}
{{- $defaults := dict
      "platform" (dict "namespace" "serving")
      "argocd" (dict "namespace" "argocd")
      "bench" (dict "image" "")
      "vllm" (dict "api_key" (dict "namespace" "serving" "name" "vllm-api-key" "field" "api-key"))
      "litellm" (dict "master_key" (dict "namespace" "litellm" "name" "litellm-secrets" "field" "PROXY_MASTER_KEY")) }}
{{- $layout := dict }}
{{- range $section, $keys := $defaults }}
{{- $_ := set $layout $section (merge (deepCopy (get $said $section | default dict)) $keys) }}
{{- end }}
{{- toYaml $layout }}
{{- end }}
