{{- define "guenon.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "guenon.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains (include "guenon.name" .) .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "guenon.name" .) | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "guenon.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{ include "guenon.selector" . }}
{{- end }}

{{- define "guenon.selector" -}}
app.kubernetes.io/name: {{ include "guenon.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "guenon.image" -}}
{{- with .Values.image }}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{- define "guenon.agent" -}}
{{ include "guenon.fullname" . }}-agent
{{- end }}

{{- define "guenon.controller" -}}
{{ include "guenon.fullname" . }}-controller
{{- end }}

{{- define "guenon.uninstall" -}}
{{ include "guenon.fullname" . }}-uninstall
{{- end }}

{{- define "guenon.check" -}}
{{ include "guenon.fullname" . }}-check
{{- end }}

{{- /* The Secret with the flow hash's key. If it is ours, the controller makes it: a template would make another key at each
render, which sends every flow elsewhere. */ -}}
{{- define "guenon.hashKeySecret" -}}
{{ .Values.hashKey.existingSecret | default (printf "%s-hash-key" (include "guenon.fullname" .)) }}
{{- end }}

{{- /* What agents and controllers must agree on. */ -}}
{{- define "guenon.sharedEnv" -}}
- name: GUENON_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- {name: GUENON_HASH_KEY_SECRET, value: {{ include "guenon.hashKeySecret" . | quote }}}
{{- with .Values.vipRanges }}
- {name: GUENON_VIP_RANGE, value: {{ join "," . | quote }}}
{{- end }}
{{- with .Values.directorSelector }}
- {name: GUENON_DIRECTOR_SELECTOR, value: {{ . | quote }}}
{{- end }}
{{- end }}

{{- /* Of a process that needs no privileges. */ -}}
{{- define "guenon.unprivilegedPod" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "guenon.unprivilegedContainer" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}
